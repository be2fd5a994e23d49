"""The codec topk: which values travel, what they come back as, what they cost, and what is remembered of the rest."""

import json
import math

import contracts
import numpy as np
import pytest
import torch

from fedmpi import catalog
from fedmpi.core.errors import UserError, WireError
from fedmpi.core.parts import Facts
from fedmpi.laws import wire as wire_laws
from fedmpi.methods.codecs import topk as module
from fedmpi.wire.codecs import fitted
from fedmpi.plugins.spec import make
from fedmpi.server import loop
from fedmpi.wire.feedback import feeding_back


def made(options=""):
    return make(catalog.CODECS, f"topk:{options}" if options else "topk")


def there_and_back(codec, values):
    return codec.decode(codec.encode(values), len(values))


def normal(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def num_bytes(arrays):
    return sum(array.nbytes for array in arrays.values())


# --- which values ---

@pytest.mark.parametrize("share, chunk", [(.0156, 4096), (.25, 100), (.5, 7), (1, 10), (.001, 33), (.9, 64), (.2, 1)])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 4096, 4097, 20_011])
def test_the_largest_of_each_chunk_travel(share, chunk, size):
    values = normal(size)
    back = there_and_back(made(f"share={share},chunk={chunk},bits=32"), values)
    for part, got in zip(values.split(chunk), back.split(chunk), strict=True):
        k = min(len(part), max(1, round(share * len(part))))
        index = part.abs().argsort(descending=True, stable=True)[:k]
        assert torch.equal(got, torch.zeros_like(part).index_copy_(0, index, part[index]))


def test_of_equal_magnitudes_the_first_travel_and_zeros_do_not():
    values = torch.tensor([1., -2, 2, 1, -2, 2, 0, -0., 0, -0., 5, 0, -0., 0, 0, 0])
    back = there_and_back(made("share=0.25,chunk=8,bits=32"), values)
    assert back.tolist() == [0, -2, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0] and not np.signbit(back[6:].numpy()).any()
    sent = made("share=0.25,chunk=8,average=senders").sent
    assert sent(made("share=0.25,chunk=8").encode(values), 16).nonzero().flatten().tolist() == [1, 2, 10]


@pytest.mark.parametrize("levels", [2, 5, 100])
def test_many_equal_values_are_chosen_as_a_stable_sort_would(levels):
    gen = torch.Generator().manual_seed(levels)
    values = torch.randint(-levels, levels + 1, (9000,), generator=gen).float()
    index = module.largest(values.numpy(), .1, 1000)
    wanted = [start + part.abs().argsort(descending=True, stable=True)[:100].sort().values
              for start, part in zip(range(0, 9000, 1000), values.split(1000))]
    wanted = torch.cat(wanted)
    assert index.tolist() == wanted[values[wanted] != 0].tolist()


# --- what they come back as ---

@pytest.mark.parametrize("options", ["bits=2", "bits=8", "bits=32", "share=1,chunk=16,bits=3",
                                     "share=0.5,chunk=1,bits=2", "share=0.3,chunk=5,bits=4,feedback=0,average=senders"])
def test_it_keeps_the_laws_of_codecs(options):
    wire_laws.codec(f"topk:{options}")


def test_levels_are_lloyds():
    """Two clusters make two levels; of evenly spread values they stand at the quarters."""
    assert module.lloyd(np.array([1., 1.2, 5, 5.2, .8]), 2).tolist() == pytest.approx([1, 5.1])
    assert module.lloyd(np.arange(10_000) / 10_000, 2).tolist() == pytest.approx([.25, .75], abs=1e-3)
    assert module.lloyd(np.zeros(0), 4).tolist() == [0] * 4 and module.lloyd(np.ones(3), 4).tolist() == [1] * 4


@pytest.mark.parametrize("bits, most", [(2, .13), (3, .08), (4, .05), (8, .01)])
def test_each_bit_brings_the_values_nearer(bits, most):
    values = normal(200_000)
    back = there_and_back(made(f"bits={bits}"), values)
    sent = back != 0
    assert int(sent.sum()) == 48 * 64 + round(.0156 * (200_000 - 48 * 4096))
    error = (back - values)[sent].norm() / values[sent].norm()
    assert float(error) < most and torch.equal(back[sent].sign(), values[sent].sign())


def test_chunks_have_scales_of_their_own():
    """A chunk a million times smaller than the next keeps its values; 2^-32 times smaller, it comes out as 0."""
    values = torch.cat([normal(4096), normal(4096, 1) * 1e-6, normal(4096, 2) * 1e-12])
    back = there_and_back(made("bits=4"), values)
    for part, got in zip(values.split(4096)[:2], back.split(4096)[:2]):
        sent = got != 0
        assert int(sent.sum()) == 64 and float((got - part)[sent].norm() / part[sent].norm()) < .06
    assert not back[8192:].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bits", [2, 32])
def test_an_update_that_diverged_is_encoded_without_a_word(bad, bits):
    values = normal(100)
    values[3] = bad
    assert torch.isfinite(there_and_back(made(f"share=0.1,bits={bits}"), values)).all()


def opened(arrays):
    """{name: bytes} of a message's parts."""
    _, sizes = json.loads(arrays["form"].tobytes())
    assert sum(sizes) == len(arrays["parts"])
    return dict(zip(("positions", "levels", "scales", "signs", "codes"), sizes))


def resized(arrays, part, more):
    """The message whose form tells another size of one part, and of the last one so that the sum is right."""
    form, sizes = json.loads(arrays["form"].tobytes())
    sizes[part] += more
    sizes[-1] -= more
    return arrays | {"form": np.frombuffer(json.dumps([form, sizes]).encode(), np.uint8)}


def test_damaged_messages_are_refused():
    for bits in (2, 32):
        codec = made(f"share=0.1,chunk=50,bits={bits}")
        arrays = codec.encode(normal(500))
        cut = [arrays | {name: array[:-1]} for name, array in arrays.items()]
        cut += [arrays | {"form": np.frombuffer(text, np.uint8)} for text in (b"3", b"[]", b'[{},["a"]]', b"[{},[]]")]
        for part in range(len(opened(arrays)) - 1):
            cut += [resized(arrays, part, more) for more in (-1, 1, -10**6)]
        for damaged in cut:
            with pytest.raises(WireError):
                codec.decode(damaged, 500)


@pytest.mark.parametrize("options, message", [
    ("share=0", "share must be"), ("share=1.5", "share must be"), ("chunk=0", "chunk must be"),
    ("bits=1", "bits must be 2 to 8, or 32"), ("bits=9", "bits must be"), ("feedback=1.1", "feedback must be"),
    ("feedback=-1", "feedback must be"), ("average=some", "average must be")])
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        made(options)


# --- what they cost ---

def entropy(share):
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


@pytest.mark.parametrize("share", [1 / 512, 1 / 128, 1 / 64, 1 / 32])
def test_a_message_costs_its_entropy(share):
    """Positions drawn at random, a sign and at most a bit for its level a value, and a byte a chunk."""
    n = 1 << 21
    arrays = made(f"share={share}").encode(normal(n))
    bits = {name: 8 * size / n for name, size in opened(arrays).items()}
    assert entropy(share) * .97 < bits["positions"] < entropy(share) * 1.02
    assert bits["signs"] == share and bits["codes"] <= share and bits["scales"] < 8 / 4096
    assert 8 * num_bytes(arrays) / n < entropy(share) * 1.02 + 2 * share + .001


def test_the_papers_setting_takes_under_150_thousandths_of_a_bit():
    values = normal(1 << 21) * torch.rand(1 << 21, generator=torch.Generator().manual_seed(1)) ** 2
    per_weight = 8 * num_bytes(made().encode(values)) / len(values)
    assert per_weight < .150 and 32 / per_weight > 210


# --- what is remembered ---

@pytest.mark.parametrize("bits", [2, 5, 32])
@pytest.mark.parametrize("beta", [.95, .5, 1])
def test_what_is_sent_and_what_is_left_make_the_old_and_the_new(bits, beta):
    """Unsent values are left to the last bit; of sent ones the rest is the codec's own difference."""
    codec = made(f"share=0.05,chunk=200,bits={bits},feedback={beta}")
    old, update = normal(5000, 1), normal(5000, 2)
    arrays, left = feeding_back(codec, update, old)
    sent, total = codec.decode(arrays, 5000), update + beta * old
    unsent = sent == 0
    assert torch.equal(left[unsent], total[unsent]) and torch.equal(left, total - sent)
    ulp = torch.finfo(torch.float32).eps * torch.maximum(total.abs(), sent.abs())
    assert ((sent + left - total).abs() <= ulp).all()
    # The difference of floats within a factor of two is exact.
    near = (sent.abs() <= 2 * total.abs()) & (sent.abs() >= total.abs() / 2)
    assert torch.equal((sent + left)[near], total[near]) and bits == 2 or near[~unsent].all()


def test_with_a_whole_memory_a_constant_update_is_sent_within_n_over_k_rounds():
    """And the mean of what was sent tends to the update: what is left stays bounded."""
    codec = made("share=0.1,chunk=50,bits=32,feedback=1")
    update, memory = normal(200).sign() * (1 + torch.rand(200, generator=torch.Generator().manual_seed(3)) / 10), None
    sent, ever = torch.zeros(200, dtype=torch.float64), torch.zeros(200, dtype=torch.bool)
    for t in range(1, 1001):
        arrays, memory = feeding_back(codec, update, memory)
        came = codec.decode(arrays, 200)
        sent += came
        ever |= came != 0
        if t == 10:                                            # n / k: 50 / 5
            assert ever.all()
    torch.testing.assert_close((sent / 1000).float(), update, rtol=0, atol=.015)
    assert memory.abs().max() < 15


def test_coded_values_tend_to_the_update_too():
    codec, update, memory = made("share=0.1,chunk=50,bits=2,feedback=1"), normal(200), None
    sent = torch.zeros(200, dtype=torch.float64)
    for _ in range(1000):
        arrays, memory = feeding_back(codec, update, memory)
        sent += codec.decode(arrays, 200)
    torch.testing.assert_close((sent / 1000).float(), update, rtol=0, atol=.05)


def test_a_decay_of_0_remembers_nothing():
    assert not made("feedback=0").feedback
    run, state = contracts.assembled(codec="topk:feedback=0,chunk=64")
    assert "clients" not in loop.evaluated_round(run, state, 1)[0]


# --- in a run ---

def test_running_averages_travel_whole_and_biases_do_not():
    codec = fitted(made("share=0.1,chunk=50,bits=32"), 300, 20)
    values = normal(1000)
    back = codec.decode(codec.encode(values), 1000)
    assert torch.equal(back[-20:], values[-20:]) and int((back[:-20] != 0).sum()) == 98
    run, _ = contracts.assembled(codec="topk", model="torchvision:name=resnet18", dataset="synthetic:samples=40,size=8")
    support = run.layout.dense_positions
    assert run.layout.num_averages == int((support >= run.layout.R).sum()) == 9600


def test_models_come_down_whole():
    run, _ = contracts.assembled(codec="topk")
    assert run.codec.down.exact


def three_clients(average):
    """(U, B, x after - x before) of a round whose clients each send a tenth of their values."""
    run, state = contracts.assembled(codec=f"topk:share=0.1,chunk=64,bits=32,feedback=0,average={average}", clients=3,
                                     strategy="fedavg", pruner="static:sparsity=0.5", contribution="uniform",
                                     weighting="uniform", observe=["cosine"])
    _, updates = contracts.first_cohort(run, state)
    after = loop.evaluated_round(run, state, 1)[0]
    support = run.layout.support(state["mask"])
    return run, updates, (after["x"] - state["x"]).index_select(0, support)


def test_the_mean_is_over_all_clients_or_over_those_who_sent_a_value():
    run, updates, step = three_clients("all")
    assert run.sums_on_workers and updates.sent is None
    torch.testing.assert_close(step, updates.U.mean(0), rtol=1e-5, atol=1e-7)
    run, updates, step = three_clients("senders")
    assert not run.sums_on_workers and torch.equal(updates.sent, updates.U != 0)
    counts = updates.sent.sum(0)
    assert {1, 2} < set(counts.tolist())
    torch.testing.assert_close(step, updates.U.sum(0) / counts.clamp(min=1), rtol=1e-5, atol=1e-7)


def test_clients_whose_masks_move_are_counted_where_they_sent():
    """Pruners see the clients' masks, and the mean the values that were sent."""
    run, state = contracts.assembled(codec="topk:share=0.1,chunk=64,bits=32,feedback=0,average=senders", clients=3,
                                     strategy="fedavg", pruner="feddst:every=1", contribution="uniform")
    _, updates = contracts.first_cohort(run, state)
    assert (updates.sent <= updates.B).all() and 0 < int(updates.sent.sum()) < .2 * int(updates.B.sum())
    assert torch.equal(updates.sent, updates.U != 0)
    for t in (1, 2):
        state, _, _ = loop.evaluated_round(run, state, t)


def test_senders_are_counted_in_means_alone():
    facts = Facts(None, {"strategy": "--strategy median"}, linear=False)
    assert "--strategy median does not merge by a mean" in list(made("average=senders").refuses(facts))[0]
    assert not list(made().refuses(facts)) and not list(made("average=senders").refuses(facts._replace(linear=True)))


def test_the_run_file_bills_the_message_as_sent():
    """A real update of 1.7 million weights, in the setting of the paper."""
    run, state = contracts.assembled(codec="topk", model="mcmahan-cnn", dataset="synthetic:samples=40,size=28",
                                     clients=2, local_epochs=1, pruner="dense", batch_size=20)
    weights = len(run.layout.support(state["mask"]))
    assert weights > 1_000_000
    for t in (1, 2):
        state, _, rows = loop.evaluated_round(run, state, t)
        per_weight = 8 * rows["up_bytes"] / weights
        assert (per_weight < .150).all()
