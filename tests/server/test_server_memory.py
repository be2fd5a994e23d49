"""Memory of rank 0 by the weight."""

from fedmpi.store import read_run

# Bytes a weight with all its clients' sums: the model, an outer momentum, the model that is tested, masks, a message.
MOST_BYTES = 20


def test_rank_0_takes_at_most_20_bytes_a_weight(fedmpi, tmp_path):
    """Of two runs the second one has more weights; all else takes the same memory."""
    runs = [tmp_path / f"{name}.h5" for name in ("small", "large")]
    shapes = ["depth=3,width=512", "depth=4,width=768"]
    options = ["--task", "lm", "--dataset", "markov:vocab=64,context=16,tokens=2000,test=64", "--clients", 2,
               "--strategy", "diloco:inner=reset", "--optimiser", "sgd", "--rounds", 2, "--local-steps", 1,
               "--batch-size", 1, "--save-every", 1]
    for shape, run in zip(shapes, runs):
        fedmpi(2, "train", *options, "--model", f"gpt:{shape},heads=8", "--out", run)
    (num_small, small), (num_large, large) = map(peak, runs)
    assert num_small > 9e6 and num_large > 2 * num_small
    by_weight = (large - small) / (num_large - num_small)
    # Less, and a vector was not counted.
    assert 12 < by_weight < MOST_BYTES


def peak(path):
    """``(weights, most bytes of rank 0 so far)`` at the end of a run of two clients."""
    rounds = read_run(path).rounds
    # Both ways, 4 bytes a weight.
    num_weights = int(rounds["dense_bytes"][-1]) // (2 * 2 * 4)
    return num_weights, int(rounds["rss_bytes"][-1])
