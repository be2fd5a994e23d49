"""The vectors of a model's length that ranks hold at their peak: bytes a weight, by purpose.

Dense float32 models on a CPU were measured, see ``fedmpi bench large``; the rest follows from what
lies in memory at the same time.
"""

from typing import NamedTuple

from fedmpi.core.allocator import LARGE

FLOAT = 4
# Of exact sums, see ``fedmpi.core.exact_sum``.
SUM = 8
# A copy in the message of a job or an answer, one on the device, one on its way between them.
TRAVELLING = 3
# Rank 0 builds the model: the module's tensors, the vector, its gradient, the first values.
BUILDING = 4
# The model of rank 0's rounds, that of its evaluations, and the one that the merge writes.
SERVING = 3
# The strategy's vectors before and after the merge.
BOTH = 2
# An answer that is read, the mean of all, and room for a method's own arithmetic.
READING = 3


class Run(NamedTuple):
    """What decides about the vectors of a run."""

    # Weights in all, and the part of them that is kept.
    P: int
    kept_frac: float
    # Vectors of the optimiser.
    moments: int
    # Vectors that each client keeps between its rounds, and how many of them lie on rank 0.
    kept: int
    memories: int
    # Of the strategy on rank 0.
    server: int
    # Workers add updates up; single updates travel.
    sums: bool
    singles: bool
    cohort: int


class Held(NamedTuple):
    """``{purpose: bytes a weight}`` of a worker, of rank 0, and of a node once for its ranks."""

    worker: dict
    server: dict
    node: dict


def held(run):
    """The ``Held`` of a ``Run``."""
    node = {"received model": FLOAT * (1 + run.kept_frac)}
    if run.sums:
        node["sums"] = float(SUM)
    worker = _of_worker(run)
    if run.P < LARGE:
        # A small model lies in each rank's own memory.
        worker |= node
        node = {}
    return Held(_positive(worker), _positive(_of_server(run)), _positive(node))


def _of_worker(run):
    """``{purpose: bytes a weight}`` of a worker's own memory."""
    single = run.singles or run.kept > 0
    # An update takes the gradient's place; its encoded values and their message come on top.
    sent = 2 * run.kept_frac if single else 0
    return {
        "model": FLOAT,
        "gradient": FLOAT,
        "optimiser": FLOAT * run.moments,
        "masks": _masks(run),
        "answer": FLOAT * sent,
        "clients' states": FLOAT * TRAVELLING * run.kept,
    }


def _of_server(run):
    """``{purpose: bytes a weight}`` of rank 0: of its rounds, or of building the model if more."""
    updates = 0.0
    if run.singles:
        updates = FLOAT * run.kept_frac * (run.cohort + READING)
    rounds = {
        "model": FLOAT * SERVING,
        "strategy": FLOAT * BOTH * run.server,
        "masks": _masks(run),
        "updates": updates,
        "clients' states": FLOAT * (run.memories + TRAVELLING * run.kept),
    }
    missing = FLOAT * BUILDING - sum(rounds.values())
    return rounds | {"building": max(0.0, missing)}


def _masks(run):
    """Bytes a weight of masks and positions: none if every weight is kept."""
    if run.kept_frac == 1:
        return 0.0
    # The mask, its copy, what is trained as float32, and positions of 4 bytes.
    return 1 + 1 + FLOAT + FLOAT * run.kept_frac


def _positive(purposes):
    return {name: size for name, size in purposes.items() if size > 0}
