"""The interface of every transport, and of a worker.

A transport has these methods:

    share(meta, arrays)             a message of large read-only arrays, in memory once a node; the workers' meta gains
                                    ``local_rank``, and ``memory(bytes) -> Room``, which all of a node's workers call
    publish(meta, arrays) -> bytes  the same message to every worker
    map(jobs, arrays=None, meanwhile=()) -> iterator of Reply, in any order
                                    ``arrays[i]``, a dict, travels with job i. While no answer has come, each step of
                                    the iterator ``meanwhile`` does a slice of work; it has ended when the last reply is
                                    taken. Raises Stopped once a run asked to stop must wait no longer.
    total_pieces(count, take)       the sum (count,) int64 of all workers' sums, node by node, piece by piece:
                                    ``take(start, piece)`` hears of ``piece``, int64, from entry ``start`` on, in order.
                                    The piece's memory is free again after the call.
    total(count) -> (count,) int64  the same sum in one array
    stop_signal()                   the name of the signal asking the run to stop, on any rank; "" without one
    close(code)

and these attributes: ``size``, the number of ranks; ``hosts``, their names; ``places``, the workers' own descriptions
by rank, see ``place``; ``versions`` of libraries; ``sent`` and ``received``, the bytes of every message on the server's
side; ``waited_s``, its seconds of waiting for answers without work; ``meanwhile_s``, its seconds of other work.

A worker has ``receive(meta, arrays)``, ``run(job, arrays) -> (meta, arrays)`` and ``total(start, stop)``, int64: the
entries ``start`` to ``stop`` of its sums, or None if it adds nothing.

Where several ranks train one client, see ``groups``, a worker also has ``join(group)``, ``divides(job)``, whether all
ranks of its group work at a job, and ``assist(job, arrays)``, that work without an answer.
"""

import time
from contextlib import nullcontext
from typing import Callable, NamedTuple

import numpy as np

# Entries of a sum that are on their way at a time: 64 MiB.
PIECE = 1 << 23


class Room(NamedTuple):
    """Memory that the workers of a node share."""

    # uint8, 0 at first
    content: np.ndarray
    # ``with lock(number):`` no other rank is inside a block of the same number.
    lock: Callable
    # Whether this rank is the first of these workers.
    is_first: bool


def own_room(num_bytes):
    """The ``Room`` of a worker without others."""
    content = np.zeros(num_bytes, np.uint8)
    return Room(content, lambda number: nullcontext(), True)


class Reply(NamedTuple):
    """The answer to ``jobs[index]``, and the packed bytes of the job and of its reply."""

    index: int
    meta: dict
    arrays: dict
    rank: int
    job_bytes: int
    reply_bytes: int


def pieces(count):
    """``(start, stop)`` of the consecutive pieces of ``count`` entries.

    >>> list(pieces(5)), len(list(pieces(2 * PIECE + 1)))
    ([(0, 5)], 3)
    """
    for start in range(0, count, PIECE):
        yield start, min(start + PIECE, count)


def whole(total_pieces, count):
    """(count,) int64: the pieces of a transport's ``total_pieces`` in one array."""
    total = np.empty(count, np.int64)

    def take(start, piece):
        total[start: start + len(piece)] = piece

    total_pieces(count, take)
    return total


def named(job):
    """The name of a rank's work at this job: ``client 17``."""
    if "team" in job:
        clients = [str(member["client"]) for member in job["team"]]
        return "clients " + ", ".join(clients)
    if "own" in job:
        return "clients' own test parts"
    if "lab" in job:
        return f"the server's own work ({job['lab']})"
    if "client" in job:
        return f"client {job['client']}"
    if "coalitions" in job:
        return "coalitions"
    return "a job"


def watched(replies, total, tell, what, every_s=5.0):
    """The same replies. Every few seconds ``tell(line)`` gets the number of replies so far, out of ``total``; ``what``
    begins the line."""
    last = time.perf_counter()
    for done, reply in enumerate(replies, start=1):
        yield reply
        if done < total and time.perf_counter() - last > every_s:
            last = time.perf_counter()
            tell(f"{what} {done:,} of {total:,}")
