"""``fedmpi bench``: one command a measurement."""

import click

from fedmpi.commands.say import say

# Each command imports its measurement when it is called: torch takes seconds, and --help none.


@click.group()
def bench():
    """Measure, side by side with a reference in the same run."""


def _bench_round(name, text):
    """``fedmpi bench NAME``: one of the works of bench.round."""
    @bench.command(name, help=text)
    @click.option(
        "--data-dir", default="data", show_default=True,
        help="With Fashion-MNIST in it; else synthetic images.")
    @click.option(
        "--samples", type=click.IntRange(0), default=0,
        help="Training samples.  [default: 60000]")
    @click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
    @click.option(
        "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
        help="Of both sides.")
    def command(data_dir, samples, repeats, device):
        from fedmpi.bench.round import measure
        return measure(name, data_dir, samples, repeats, device, say)


_bench_round(
    "cross-silo",
    "A round of 32 clients with a CNN of 582,026 weights, dense, in bf16, and by the thesis's "
    "algorithm at sparsity 0.9, against plain PyTorch loops of the dense steps on the same ranks: "
    "mpirun -n 3 fedmpi bench cross-silo.")
_bench_round(
    "cross-device",
    "The same network, 50 of 1000 clients a round with 60 images each: mpirun -n 3 fedmpi bench "
    "cross-device.")
_bench_round(
    "tiny",
    "Logistic regression, 10 of 1000 clients a round, in one process: fedmpi bench tiny.")


@bench.command("shapley")
@click.option(
    "--data-dir", default="data", show_default=True,
    help="With Fashion-MNIST in it; else synthetic images.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True,
    help="Rounds that GTG-Shapley observes.")
def bench_shapley(data_dir, repeats, rounds):
    """Exact Shapley values of 10 clients (1024 coalitions, LeNet-5, 1000 samples) on all workers,
    on one, and by a loop over state dicts; and GTG-Shapley beside them: mpirun -n 3 fedmpi bench
    shapley."""
    from fedmpi.bench.shapley import measure
    return measure(data_dir, repeats, rounds, say)


# 11 million weights are a ResNet-18.
@bench.command("wire")
@click.option(
    "--weights", type=click.IntRange(10000), default=11_000_000, show_default=True,
    help="Of the model.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def bench_wire(weights, repeats):
    """Bytes and speed of masks and values on one core, against the bound of information and other
    libraries, and the steps of a sparse model on its way against a dense one's."""
    from fedmpi.bench.wire import measure
    return measure(weights, repeats, say)


@bench.command("step")
@click.option("--model", default="cnn", show_default=True)
@click.option(
    "--size", type=click.IntRange(1), default=28, show_default=True,
    help="Of the square images, pixels.")
@click.option("--channels", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--samples", type=click.IntRange(1), default=960, show_default=True,
    help="Of a client.")
@click.option(
    "--together", type=click.IntRange(1), default=8, show_default=True,
    help="Clients side by side.")
@click.option(
    "--sparsity", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True)
@click.option(
    "--precision", type=click.Choice(["float32", "bf16"]), default="float32", show_default=True)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=4, show_default=True)
def bench_step(device, repeats, **sizes):
    """Local steps alone, one by one and side by side, on a GPU also recorded, against a bare loop
    of torch.optim.SGD: fedmpi bench step --model cifar10net --size 32 --channels 3 --together
    10."""
    from fedmpi.bench.step import measure
    return measure(device, repeats, say, **sizes)


@bench.command("structure")
@click.option("--model", default="small-cnn:width=32", show_default=True)
@click.option(
    "--size", type=click.IntRange(1), default=28, show_default=True,
    help="Of the square images, pixels.")
@click.option("--channels", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--samples", type=click.IntRange(1), default=320, show_default=True,
    help="Of a client.")
@click.option(
    "--rate", type=click.FloatRange(0, 1, max_open=True), default=0.5, show_default=True,
    help="Share of the filters and neurons of each layer that is cut.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=11, show_default=True)
def bench_structure(device, repeats, **sizes):
    """A training step of a network without half of its filters against the whole one's, pair by
    pair; on a CPU more than 0.35 of it is exit code 1: fedmpi bench structure."""
    from fedmpi.bench.structure import measure
    return measure(device, repeats, say, **sizes)


# The defaults are pfl-research's.
@bench.command("together")
@click.option(
    "--together", type=click.IntRange(1), multiple=True, default=(1, 8, 25, 50), show_default=True,
    help="Clients that a worker trains at once. May be given several times.")
@click.option(
    "--users", type=click.IntRange(1), default=1000, show_default=True,
    help="Clients in all.")
@click.option(
    "--samples", type=click.IntRange(1), default=50, show_default=True,
    help="Training samples of each.")
@click.option(
    "--cohort", type=click.IntRange(1), default=50, show_default=True,
    help="Clients a round.")
@click.option("--batch-size", type=click.IntRange(1), default=10, show_default=True)
@click.option("--model", default="pfl-cnn", show_default=True)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--data-dir", default="data", show_default=True,
    help="With CIFAR-10 in it; else synthetic images.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def bench_together(together, **sizes):
    """Rounds a second of pfl-research's CIFAR-10 set-up with several clients trained at once,
    against a plain loop. In under a minute on a CPU: fedmpi bench together --users 100 --cohort 10
    --samples 20 --repeats 1."""
    from fedmpi.bench.together import measure
    return measure(together, say=say, **sizes)


@bench.command("server")
@click.option(
    "--folder", default=None, type=click.Path(file_okay=False, exists=True),
    help="Where to write; else a temporary one.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def bench_server(folder, repeats):
    """What rank 0 does in a round, each step beside a reference: merging and scoring 32 clients of
    1,100,000 values, pruning and growing 11 million weights, rows, checkpoints, and cohorts of
    1000. In one process."""
    from fedmpi.bench.server import measure
    return measure(folder, repeats, say)


# It starts its ranks itself: the time of the launcher counts.
@bench.command("start")
@click.option("--ranks", type=click.IntRange(2), default=3, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def bench_start(ranks, repeats):
    """Seconds from the command to the first round, against as many ranks that import torch and read
    the data. Starts both itself: fedmpi bench start, without mpirun."""
    from fedmpi.bench.start import measure
    return measure(ranks, repeats, say)


@bench.command("transport")
@click.option(
    "--weights", type=click.IntRange(10000), default=11_000_000, show_default=True,
    help="Of the model.")
@click.option(
    "--replies", type=click.IntRange(1), default=5000, show_default=True,
    help="Small jobs that are answered.")
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True)
def bench_transport(weights, replies, repeats):
    """A sparse model to a worker, a message to all, small replies a second and what ranks burn that
    wait, beside MPI alone: mpirun -n 3 fedmpi bench transport, and -n 33."""
    from fedmpi.bench.transport import measure
    return measure(weights, replies, repeats, say)


# 33 ranks are the server and a worker for each of 32 clients, as make run starts them.
@bench.command("crowd")
@click.option("--ranks", type=click.IntRange(2), default=33, show_default=True)
@click.option(
    "--data-dir", default="data", show_default=True,
    help="With Fashion-MNIST in it; else synthetic images.")
@click.option(
    "--samples", type=click.IntRange(0), default=0,
    help="Training samples.  [default: 60000]")
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True,
    help="That are timed, after one that is not.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def bench_crowd(ranks, data_dir, samples, rounds, repeats):
    """Seconds a round of the cross-silo work on many ranks against 3. Starts both itself: fedmpi
    bench crowd, without mpirun."""
    from fedmpi.bench.many_ranks import measure
    return measure(ranks, data_dir, samples, rounds, repeats, say)


@bench.command("memory")
@click.option("--model", default="cnn", show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=500, show_default=True)
@click.option(
    "--limit", type=click.IntRange(0), default=2048, show_default=True,
    help="KB by which a worker may grow after a tenth of the rounds; more is exit code 1.")
def bench_memory(model, rounds, limit):
    """What the resident memory of ranks that train consists of, and how much it grows over 500
    rounds: mpirun -n 3 fedmpi bench memory."""
    from fedmpi.bench.memory import measure
    return measure(model, rounds, limit, say)


@bench.command("sparse-step")
@click.option("--width", type=click.IntRange(8), default=768, show_default=True)
@click.option("--depth", type=click.IntRange(1), default=2, show_default=True)
@click.option("--heads", type=click.IntRange(1), default=12, show_default=True)
@click.option("--context", type=click.IntRange(1), default=64, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--sparsity", "sparsities", type=click.FloatRange(0, 1, max_open=True), multiple=True,
    default=(0.5, 0.8, 0.9, 0.95), show_default=True, help="May be given several times.")
@click.option("--steps", type=click.IntRange(1), default=2, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def bench_sparse_step(width, depth, heads, context, batch, sparsities, steps, repeats):
    """A whole training step of a sparse GPT with the kernels of train --kernel against the dense
    step, on one thread. A minute or two."""
    from fedmpi.bench.sparse_step import measure
    return measure(width, depth, heads, context, batch, sparsities, steps, repeats, say)


# 124 million weights are the smallest GPT-2.
@bench.command("large")
@click.option(
    "--weights", type=click.FloatRange(1e4), default=124e6, show_default=True,
    help="Of the model, about.")
@click.option(
    "--strategy", type=click.Choice(["fedavg", "diloco"]), default="fedavg", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--folder", default=None, type=click.Path(file_okay=False, exists=True),
    help="Where to write checkpoints; else a temporary one.")
@click.option(
    "--limit", type=click.FloatRange(0), default=1.5, show_default=True,
    help="Of a round's seconds by those of the same bytes alone; more is exit code 1.")
@click.option(
    "--worker-limit", type=click.FloatRange(0), default=17, show_default=True,
    help="Of a worker's bytes a weight; more is exit code 1.")
@click.option(
    "--server-limit", type=click.FloatRange(0), default=20, show_default=True,
    help="The same of rank 0.")
def bench_large(weights, strategy, repeats, folder, limit, worker_limit, server_limit):
    """Rounds of a model of 124 million weights with a given gradient: seconds by phase beside the
    same bytes copied, sent and written alone, and memory by the weight: mpirun -n 3 fedmpi bench
    large."""
    from fedmpi.bench.large import Limits, measure
    limits = Limits(limit, worker_limit, server_limit)
    return measure(weights, strategy, repeats, folder, limits, say)


@bench.command("language")
@click.option(
    "--model", default="gpt2", show_default=True, help="A model of tokens, with its options.")
@click.option("--vocab", type=click.IntRange(2), default=50304, show_default=True)
@click.option("--context", type=click.IntRange(2), default=1024, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--local-steps", type=click.IntRange(1), default=50, show_default=True,
    help="Of a client in a round.")
@click.option("--clients", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--accumulate", type=click.IntRange(1), default=1, show_default=True,
    help="Parts of a batch, one after the other.")
@click.option(
    "--precision", type=click.Choice(["float32", "bf16"]), default="bf16", show_default=True)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--repeats", type=click.IntRange(0), default=3, show_default=True,
    help="0: no bare steps, for models too large to be there twice.")
def bench_language(device, repeats, **sizes):
    """Rounds of a language model against the bare steps of torch's AdamW, tokens a second, and the
    largest memory of the GPU. On a CPU: fedmpi bench language --model
    gpt:depth=2,width=64,heads=2 --vocab 64 --context 32 --precision float32 --clients 2."""
    from fedmpi.bench.language import measure
    return measure(device, repeats, say, **sizes)


@bench.command("sparse")
@click.option(
    "--n", "sizes", type=click.IntRange(16), multiple=True, default=(256, 768, 1024),
    show_default=True, help="Inputs and outputs of the layer. May be given several times.")
@click.option(
    "--batch", "batches", type=click.IntRange(1), multiple=True, default=(32, 256, 2048),
    show_default=True, help="Samples of a step. May be given several times.")
@click.option(
    "--sparsity", "sparsities", type=click.FloatRange(0, 1, max_open=True), multiple=True,
    default=(0.5, 0.8, 0.9, 0.95, 0.99), show_default=True, help="May be given several times.")
@click.option(
    "--block", type=click.IntRange(1), default=8, show_default=True,
    help="Side of the blocks. It divides every --n.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--json", "path", default=None, type=click.Path(dir_okay=False, writable=True),
    help="Where to write all figures.")
def bench_sparse(sizes, batches, sparsities, block, repeats, path):
    """When sparse products beat dense ones: forward and both backward products of a linear layer,
    dense, masked, in bf16, by MKL's sparse products (csr, bsr) and by the kernels of train --kernel
    (single, block), on one thread, and 2:4 on a GPU.
    Under two minutes; --n 4096 takes several: fedmpi bench sparse --json sparse.json."""
    undivided = [n for n in sizes if n % block]
    if undivided:
        raise click.UsageError(f"--n {undivided[0]} is not made of whole blocks of --block {block}: "
                               "take a multiple of it")
    from fedmpi.bench.sparse import measure
    return measure(sizes, batches, sparsities, block, repeats, path, say)
