"""Estimates of the memory that ranks need, on a node and on a GPU, before a run starts."""

from typing import NamedTuple

from fedmpi.core.allocator import LARGE
from fedmpi.core.words import plural

# Memory of the node: a rank with torch for CPU and a small model; 730 MB measured on x86-64.
RANK_BYTES = 730e6
# More for rank 0, with its run file and its methods; 100 MB measured alone, 120 to 260 MB beside
# workers.
SERVER_BYTES = 180e6
# The same with the libraries of CUDA; 1.3 to 1.7 GB measured on an H200.
GPU_RANK_BYTES = 2e9
# Memory of a GPU that each of its ranks takes beside tensors, with cuBLAS and cuDNN loaded;
# measured on an H200.
CONTEXT_BYTES = 0.8e9
# Vectors of the model's length that a rank holds: weights, gradient, base, masks, frames.
VECTORS = 10
# Of a large model on the host: a rank's own, and those that a node's ranks share.
LEAN, SHARED = 5, 4
# More vectors for each client that is trained beside others: weights, gradient and its parts,
# momentum, answer.
ROWS = 6
# And on a GPU, with recorded steps: the start of a team of clients, and its result.
RECORDED = 2
# Values of a layer's output: one, and its gradient.
BOTH_WAYS = 2
FLOAT_BYTES = 4
# Parts of an estimate below this are not shown.
SHOWN_BYTES = 5e6
GB = 1e9


class Need(NamedTuple):
    """Bytes of a GPU's memory that one rank takes, by purpose."""

    context: float
    model: float
    samples: float
    batch: float
    coalitions: float

    @property
    def total(self):
        return sum(self)


def vectors_of_ranks(P):
    """``(of a rank, of a node)``: vectors of P values on the host, where no more is known of a run.

    Ranks of a node share a large model's messages and sums; its optimiser is AdamW.
    """
    if P < LARGE:
        return VECTORS, 0
    return LEAN, SHARED


def worker_need(P, outputs, *, batch_size, samples_bytes, block, images, together=1):
    """The ``Need`` of a worker that trains ``together`` clients of ``samples_bytes`` at once.

    The model has P values. ``outputs`` are bytes for a sample, ``(all layers, largest layer)``. A
    job evaluates ``block`` coalition models, with ``images`` samples in one pass.
    """
    all_layers, largest_layer = outputs
    beside = _beside(together)
    vectors = VECTORS + (ROWS + RECORDED) * beside
    return Need(
        context=CONTEXT_BYTES,
        model=FLOAT_BYTES * P * vectors,
        samples=2 * samples_bytes * (1 + beside),
        batch=BOTH_WAYS * all_layers * batch_size * together,
        coalitions=2 * FLOAT_BYTES * P * block + BOTH_WAYS * largest_layer * images)


def _beside(together):
    """The number of clients that are trained side by side; 0 for clients trained one by one."""
    return together if together > 1 else 0


def server_need(P, outputs, *, samples_bytes, batch_size):
    """The ``Need`` of the server: all its samples, and a forward pass without gradients."""
    _, largest_layer = outputs
    return Need(
        context=CONTEXT_BYTES,
        model=FLOAT_BYTES * P * VECTORS,
        samples=samples_bytes,
        batch=BOTH_WAYS * largest_layer * batch_size,
        coalitions=0.0)


def in_words(need):
    """``1.3 GB: 0.5 context, 0.4 model, ...``"""
    parts = []
    for name, size in need._asdict().items():
        if size >= SHOWN_BYTES:
            parts.append(f"{size / GB:.2g} {name}")
    return f"{need.total / GB:.2g} GB: {', '.join(parts)}"


def users(workers, served):
    """``2 workers and the server``; ``served``: whether the server is one of the users."""
    names = []
    if workers:
        names.append(plural(workers, "worker"))
    if served:
        names.append("the server")
    return " and ".join(names)


def gpu_refusals(gpus, worker, server):
    """A line for each GPU without enough memory for its ranks.

    ``gpus`` is a list of ``(name, free bytes, workers, whether the server is there, too)``.
    """
    for name, free, workers, served in gpus:
        need = workers * worker.total
        ways_out = ["take fewer ranks", "a smaller --batch-size"]
        if served:
            need += server.total
            ways_out.append("--server-device cpu")
        if need <= free:
            continue
        yield (f"{name} has {free / GB:.1f} GB free, but {users(workers, served)} on it need about "
               f"{need / GB:.1f} GB (a worker {in_words(worker)}): {', '.join(ways_out)}, "
               "or --device cpu")


class Hosted(NamedTuple):
    """Bytes that ranks of a node will still take after loading torch."""

    # Of one worker, of rank 0, and of memory that they share.
    worker: float
    server: float
    shared: float
    # How many of these are vectors of the model's length, which nothing can spare.
    vectors: float
    # Of all ranks together.
    total: float


def host_need(held, P, outputs, *, batch_size, data_bytes, workers, first, together=1):
    """The ``Hosted`` of a node with so many workers; ``first``: rank 0 is there, too.

    ``held`` are the vectors, of P values, see ``fedmpi.build.vectors``.
    """
    all_layers, _ = outputs
    # Of clients that train side by side.
    rows = FLOAT_BYTES * P * ROWS * _beside(together)
    batch = BOTH_WAYS * all_layers * batch_size * together
    own, served, shared = (P * sum(purposes.values()) for purposes in held)
    vectors = workers * own + first * served + shared
    worker = own + rows + batch
    # Rank 0 has read the data set before it shares it.
    server = served + data_bytes
    # Ranks of a node share the data.
    shared += data_bytes
    total = workers * worker + first * server + shared
    return Hosted(worker, server, shared, vectors, total)
