"""What every transport offers, and what it asks of a worker.

A transport has ``share(meta, arrays)`` (a message of large read-only arrays, in memory once a node; the workers' meta
gains ``local_rank``), ``publish(meta, arrays) -> bytes`` (the same message to every worker), ``map(jobs, arrays=None,
meanwhile=()) -> iterator of Reply`` (any order; ``arrays[i]``, a dict, travels with job i; raises Stopped where a run
that was asked to stop must wait no longer; the iterator ``meanwhile`` does a slice of work at each step, while no
answer is there, and has ended when the last reply is taken), ``total(count) -> (count,) int64`` (the sum over all
workers of what ``worker.total(count)`` gives, node by node), ``asked()`` (the name of the signal, on any rank, that
asked, or an empty text) and ``close(code)``; ``size`` is the number of ranks, ``hosts`` their names, ``places`` what
the workers said of where they run, by rank, ``versions`` the libraries used, ``sent`` and ``received`` count the bytes
of every message on the server's side, ``waited_s`` the seconds in which it waited for answers and did nothing,
``meanwhile_s`` those in which it had something else to do.

A worker has ``receive(meta, arrays)``, ``run(job, arrays) -> (meta, arrays)`` and ``total(count)``.
"""

import time
from typing import NamedTuple


class Reply(NamedTuple):
    """What came back for ``jobs[index]``, and the bytes of the job and of its reply as they were handed over."""

    index: int
    meta: dict
    arrays: dict
    rank: int
    job_bytes: int
    reply_bytes: int


def named(job):
    """What a rank that has this job is at: ``client 17``."""
    if "team" in job:
        return "clients " + ", ".join(str(each["client"]) for each in job["team"])
    if "own" in job:
        return "clients' own test parts"
    if "lab" in job:
        return f"the server's own work ({job['lab']})"
    return f"client {job['client']}" if "client" in job else "coalitions" if "coalitions" in job else "a job"


def watched(replies, total, tell, what, every_s=5.0):
    """The same replies; ``tell(line)`` says every few seconds how many of ``total`` have come."""
    last = time.perf_counter()
    for done, reply in enumerate(replies, start=1):
        yield reply
        if done < total and time.perf_counter() - last > every_s:
            last = time.perf_counter()
            tell(f"{what} {done:,} of {total:,}")
