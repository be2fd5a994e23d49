"""What the transport does beside what the MPI alone does, and which MPI that is."""

import ctypes
import os
import time

import mpi4py
import numpy as np
from mpi4py import MPI

from fedmpi.transport import messages
from fedmpi.transport.messages import LAST
from fedmpi.wire.frame import pack, unpack

PROBED = 64               # workers, at most, that a probe asks one by one


def probe(comm, places):
    """What the transport does beside what the MPI alone does, as JSON takes it: ``waiting`` (share of a core, by
    rank), ``pairs`` (of rank 0 and a worker: see ``_pair``) and ``broadcast`` (seconds, to all)."""
    workers = range(1, comm.size)
    waiting = _ask_all(comm, workers, {"what": "wait"}, lambda: time.sleep(0.5))
    buffer = np.zeros(4 << 20, np.uint8)
    seconds = {bare: min(_timed(lambda bare=bare: _ask_all(comm, workers, {
        "what": "broadcast", "bytes": len(buffer), "bare": bare}, lambda bare=bare: _broadcast(comm, buffer, bare)))
        for _ in range(3)) for bare in (False, True)}
    pairs, far = {}, set()                           # one worker a node is also asked for long messages
    for rank in workers[:: -(-len(workers) // PROBED)]:
        node = places[rank].get("node")
        pairs[rank] = _pair(comm, rank, node not in far and len(far) < 4)
        far.add(node)
    for rank in workers:
        messages.send(comm, pack({"what": "end"}, {}), rank)
    comm.Free()
    return {"waiting": waiting, "pairs": pairs, "broadcast": {
        "bytes": len(buffer), "seconds": seconds[False], "bare_seconds": seconds[True]}}


def _timed(do):
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def _ask_all(comm, workers, meta, meanwhile):
    """``{rank: number}`` that each worker answers to ``meta``; in between this rank does ``meanwhile()``."""
    for rank in workers:
        messages.send(comm, pack(meta, {}), rank)
    meanwhile()
    for rank in workers:
        messages.send(comm, pack({}, {}), rank)
    return {rank: unpack(messages.receive(comm, rank)[0])[0]["number"] for rank in workers}


def _pair(comm, rank, long):
    """Of this rank and another: ``round_trip_s`` of 8 bytes, ``clock_s`` (how much later it is there) and the error of
    that, ``rates`` in bytes a second one way, by bytes sent; and the same of MPI alone, as ``bare_...``."""
    found = {"rates": {}, "bare_rates": {}}
    for bare, name in ((False, ""), (True, "bare_")):
        trips = _trips(comm, rank, 8, 20, bare)
        found[name + "round_trip_s"] = float(np.median([seconds for seconds, _ in trips]))
        if not bare:
            seconds, found["clock_s"] = min(trips)
            found["clock_error_s"] = seconds / 2
    for num_bytes in [4 << 20] + [64 << 20] * long:
        for bare, name in ((False, ""), (True, "bare_")):
            trips = _trips(comm, rank, num_bytes, 4, bare)
            found[name + "rates"][num_bytes] = 2 * num_bytes / min(seconds for seconds, _ in trips)
    return found


def _trips(comm, rank, num_bytes, times, bare):
    """``[(seconds, how much later it is there)]`` of each message to ``rank`` and back; the first warms up."""
    messages.send(comm, pack({"what": "echo", "bytes": num_bytes, "times": times, "bare": bare}, {}), rank)
    buffer, found = np.zeros(num_bytes, np.uint8), []
    for _ in range(times):
        start, now = time.perf_counter(), time.time()
        if bare:
            comm.Send([buffer, MPI.BYTE], rank, LAST)
            comm.Recv([buffer, MPI.BYTE], rank, LAST)
        else:
            messages.send(comm, buffer, rank)
            buffer = messages.receive(comm, rank)[0]
        seconds = time.perf_counter() - start
        found.append((seconds, float(buffer[-8:].view(np.float64)[0]) - now - seconds / 2))
    return found[1:]


def _broadcast(comm, buffer, bare):
    if bare:
        comm.Bcast([buffer, MPI.BYTE])
    else:
        messages.broadcast(comm, buffer)
    messages.barrier(comm)


def be_probed(comm):
    """A worker's side of ``Mpi.probe``."""
    while (meta := unpack(messages.receive(comm, 0)[0])[0])["what"] != "end":
        if meta["what"] == "echo":
            _echo(comm, meta["bytes"], meta["times"], meta["bare"])
            continue
        start, used = time.perf_counter(), time.process_time()
        if meta["what"] == "broadcast":
            _broadcast(comm, np.empty(meta["bytes"], np.uint8), meta["bare"])
        messages.receive(comm, 0)
        share = (time.process_time() - used) / (time.perf_counter() - start)
        messages.send(comm, pack({"number": share}, {}), 0)
    comm.Free()


def _echo(comm, num_bytes, times, bare):
    """Send back what comes, with the time of this rank in its last 8 bytes."""
    buffer = np.empty(num_bytes, np.uint8)
    for _ in range(times):
        if bare:
            comm.Recv([buffer, MPI.BYTE], 0, LAST)
        else:
            buffer = messages.receive(comm, 0)[0]
        buffer[-8:].view(np.float64)[0] = time.time()
        if bare:
            comm.Send([buffer, MPI.BYTE], 0, LAST)
        else:
            messages.send(comm, buffer, 0)


def library():
    """What MPI is loaded, as JSON takes it."""
    name = MPI.Get_library_version().partition("\n")[0].strip("\0 ")
    return {"library": " ".join(name.split()), "mpi4py": mpi4py.__version__,
            "standard": ".".join(map(str, MPI.Get_version())), "binary": os.path.basename(MPI.__file__),
            "threads": {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled",
                        MPI.THREAD_SERIALIZED: "serialized", MPI.THREAD_MULTIPLE: "multiple"}[MPI.Query_thread()],
            "cuda_aware": cuda_aware()}


def cuda_aware():
    """Whether this MPI says that it takes pointers to GPU memory; None where it has no word for it. Open MPI and MPICH
    offer the same function, which is in no standard and not in mpi4py. This transport makes no use of it, see
    staging."""
    found = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return None if found is None else bool(found())
