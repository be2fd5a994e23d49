"""What every transport offers, and what it asks of a worker.

A transport has ``share(arrays)`` (large read-only arrays, once a node), ``publish(meta, arrays) -> bytes`` (the same
message to every worker), ``map(jobs) -> iterator of Reply`` (any order) and ``close(code)``; ``size`` is the number of
ranks, ``hosts`` their names, ``versions`` the libraries used, ``sent`` and ``received`` count the bytes of every message on the server's side.

A worker has ``attach(arrays, local_rank)``, ``receive(meta, arrays)`` and ``run(job) -> (meta, arrays)``.
"""

from typing import NamedTuple


class Reply(NamedTuple):
    """What came back for ``jobs[index]``, and the bytes of the job and of its reply as they were handed over."""

    index: int
    meta: dict
    arrays: dict
    rank: int
    job_bytes: int
    reply_bytes: int
