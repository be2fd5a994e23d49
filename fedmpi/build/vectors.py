"""The vectors of a model's length that ranks hold at their peak: bytes a weight, by purpose.

Dense float32 models on a CPU were measured, see ``fedmpi bench large``; the rest follows from what
lies in memory at the same time.
"""

from typing import NamedTuple

from fedmpi.core.allocator import LARGE

FLOAT = 4
# Of exact sums, see ``fedmpi.core.exact_sum``.
SUM = 8
# Rank 0 builds the model: the module's tensors, the vector, its gradient, the first values.
BUILDING = 4
# The model of rank 0's rounds, that of its evaluations, and the one that the merge writes.
SERVING = 3
# The strategy's vectors before the merge, after it, and on their way to a checkpoint.
STRATEGY = 3
# An answer that is read, the mean of all, and room for a method's own arithmetic.
READING = 3
# An answer of the strategy, and its message.
ANSWERING = 2
# A client's state on a worker: in its job, on the device, and in the answer. An optimiser's goes on
# where it came.
TRAVELLING = 3
# Of clients' states on rank 0: those in jobs and answers of two workers.
IN_FLIGHT = 4
# Workers' sums that are not merged in pieces: their mean, the update from it, and the next model's.
WHOLE = 3


class Run(NamedTuple):
    """What decides about the vectors of a run."""

    # Weights in all, and the part of them that is kept.
    P: int
    kept_frac: float
    # Vectors of the optimiser.
    moments: int
    # Vectors that each client keeps between its rounds, those of its optimiser left out and alone,
    # and how many of both lie on rank 0.
    kept: int
    inner: int
    memories: int
    # Of the strategy: on rank 0, to every client, and from every client.
    server: int
    sent: int
    answers: int
    # Workers add updates up, which are merged in pieces or at once; single updates travel.
    sums: bool
    in_pieces: bool
    singles: bool
    cohort: int


class Held(NamedTuple):
    """``{purpose: bytes a weight}`` of a worker, of rank 0, and of a node once for its ranks."""

    worker: dict
    server: dict
    node: dict


def held(run):
    """The ``Held`` of a ``Run``."""
    # The messages of this round and of the last.
    messages = 2 * FLOAT * run.kept_frac * (1 + run.sent)
    # A dense model lies in its message.
    received = FLOAT if run.kept_frac < 1 else 0
    sums = SUM * run.kept_frac if run.sums else 0
    # What is sent to clients becomes whole vectors, and bends the gradient as one more.
    bending = run.sent + (run.sent > 0)
    node = {"messages": messages, "received model": received, "sums": sums}
    worker = {
        "model": FLOAT,
        # An update takes its place.
        "gradient": FLOAT,
        "optimiser": FLOAT * run.moments,
        "masks": _masks(run),
        "strategy": FLOAT * (bending + ANSWERING * run.answers),
        "clients' states": FLOAT * TRAVELLING * run.kept,
    }
    if run.P < LARGE:
        # A small model lies in each rank's own memory.
        worker |= node
        node = {}
    return Held(_positive(worker), _positive(_of_server(run)), _positive(node))


def _of_server(run):
    """``{purpose: bytes a weight}`` of rank 0: of its rounds, or of building the model if more."""
    updates = 0.0
    if run.singles:
        updates = FLOAT * run.kept_frac * (run.cohort + READING)
    elif not run.in_pieces:
        updates = FLOAT * run.kept_frac * WHOLE * (1 + run.answers)
    rounds = {
        "model": FLOAT * SERVING,
        "strategy": FLOAT * STRATEGY * run.server,
        "masks": _masks(run),
        "updates": updates,
        "clients' states": FLOAT * (run.memories + IN_FLIGHT * (run.kept + run.inner)),
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
