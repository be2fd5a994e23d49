"""How much memory ranks need: the constants of all estimates, and the estimate for a GPU before a run starts."""

from typing import NamedTuple

RANK_BYTES = 700e6            # a rank that has loaded torch and a small model; measured, x86-64, torch for CPU
GPU_RANK_BYTES = 2e9          # and with the libraries of CUDA, in the memory of the node; 1.3 to 1.7 on an H200
CONTEXT_BYTES = 0.8e9         # of a GPU that every rank on it takes beside tensors, cuBLAS and cuDNN loaded; there, too
VECTORS = 10                  # of the length of the model that a rank holds: weights, gradient, base, masks, frames
ROWS = 6                      # and for each client beside others: weights, gradient and its parts, momentum, answer
RECORDED = 2                  # and on a GPU, where steps are recorded: what a team starts from, and what it gives back
BOTH_WAYS = 2                 # what a layer puts out is kept for the gradient, which is as large


class Need(NamedTuple):
    """Bytes of a GPU's memory that one rank takes, by what for."""

    context: float
    model: float
    samples: float
    batch: float
    coalitions: float

    @property
    def total(self):
        return sum(self)


def worker_need(P, outputs, *, batch_size, samples_bytes, block, images, together=1):
    """The ``Need`` of a worker: a model of P values whose layers put out ``(all, largest)`` = ``outputs`` bytes a
    sample, a client's ``samples_bytes``, and ``block`` coalition models with ``images`` samples in one pass; it trains
    ``together`` clients at once."""
    every, largest = outputs
    beside = together * (together > 1)
    return Need(CONTEXT_BYTES, 4 * P * (VECTORS + (ROWS + RECORDED) * beside), 2 * samples_bytes * (1 + beside),
                BOTH_WAYS * every * batch_size * together, 8 * P * block + BOTH_WAYS * largest * images)


def server_need(P, outputs, *, samples_bytes, batch_size):
    """The ``Need`` of the server: all samples that it tests and selects on, and a pass that keeps no outputs."""
    return Need(CONTEXT_BYTES, 4 * P * VECTORS, samples_bytes, BOTH_WAYS * outputs[1] * batch_size, 0.0)


def told(need):
    """``1.3 GB a rank: 0.5 context, 0.4 model, ...``"""
    parts = ", ".join(f"{value / 1e9:.2g} {name}" for name, value in zip(need._fields, need) if value >= 5e6)
    return f"{need.total / 1e9:.2g} GB: {parts}"


def users(workers, served):
    """``2 workers and the server``"""
    return " and ".join([f"{workers} worker{'s' * (workers > 1)}"] * (workers > 0) + ["the server"] * served)


def gpu_refusals(gpus, worker, server):
    """A line for each GPU that cannot hold its ranks; ``gpus`` is a list of ``(name, free bytes, workers, whether the
    server is there, too)``."""
    for name, free, workers, served in gpus:
        need = workers * worker.total + served * server.total
        if need > free:
            yield (f"{name} has {free / 1e9:.1f} GB free, but {users(workers, served)} on it need about "
                   f"{need / 1e9:.1f} GB (a worker {told(worker)}): take fewer ranks, a smaller --batch-size"
                   + ", --server-device cpu" * served + ", or --device cpu")


def host_need(P, outputs, *, batch_size, cohort, data_bytes, ranks, first, together=1, memories=0):
    """Bytes that the ranks of a node will still take once torch is loaded; ``first`` where rank 0 is among them, which
    holds what ``memories`` clients remember."""
    beside = together * (together > 1)
    each = 4 * P * (VECTORS + ROWS * beside) + BOTH_WAYS * outputs[0] * batch_size * together
    return ranks * each + data_bytes + first * (8 * P * cohort + 4 * P * memories + data_bytes)
