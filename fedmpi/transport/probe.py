"""Measures the transport beside MPI alone, and names the MPI library."""

import ctypes
import os
import time

import mpi4py
import numpy as np
from mpi4py import MPI

from fedmpi.transport import messages
from fedmpi.transport.messages import PART
from fedmpi.wire.frame import pack, unpack

# The most workers asked one by one.
PROBED = 64
# Seconds of waiting while ranks measure their share of a core.
WAIT_S = 0.5
# Bytes of messages: every pair's, and those of one pair a node, on the first FAR nodes.
LENGTH, LONG_LENGTH, FAR = 4 << 20, 64 << 20, 4
# Messages there and back: of 8 bytes, and of many.
SHORT_TRIPS, LONG_TRIPS = 20, 4
# Measured twice: by the transport, and by MPI alone, under names with a prefix.
KINDS = ((False, ""), (True, "bare_"))


def probe(comm, places):
    """Measurements for JSON: ``waiting`` (each rank's share of a core while it waits, by rank), ``pairs`` (of rank 0
    and a worker: see ``_pair``) and ``broadcast`` (seconds, to all)."""
    workers = range(1, comm.size)
    waiting = _ask_all(comm, workers, {"what": "wait"}, lambda: time.sleep(WAIT_S))
    buffer = np.zeros(LENGTH, np.uint8)
    broadcast = {"bytes": len(buffer)}
    for bare, prefix in KINDS:
        times_s = [_broadcast_s(comm, workers, buffer, bare) for _ in range(3)]
        broadcast[prefix + "seconds"] = min(times_s)
    pairs = _pairs(comm, places, workers)
    for rank in workers:
        messages.send(comm, pack({"what": "end"}, {}), rank)
    comm.Free()
    return {"waiting": waiting, "pairs": pairs, "broadcast": broadcast}


def _broadcast_s(comm, workers, buffer, bare):
    """The seconds of one broadcast of ``buffer``, with the exchange around it."""
    meta = {"what": "broadcast", "bytes": len(buffer), "bare": bare}
    start = time.perf_counter()
    _ask_all(comm, workers, meta, lambda: _broadcast(comm, buffer, bare))
    return time.perf_counter() - start


def _pairs(comm, places, workers):
    """``{rank: _pair}`` of at most PROBED workers, evenly spread."""
    pairs = {}
    nodes = set()
    step = -(-len(workers) // PROBED)
    for rank in workers[::step]:
        node = places[rank].get("node")
        # One worker a node also gets long messages.
        is_long = node not in nodes and len(nodes) < FAR
        pairs[rank] = _pair(comm, rank, is_long)
        nodes.add(node)
    return pairs


def _ask_all(comm, workers, meta, meanwhile):
    """``{rank: number}``: each worker's answer to ``meta``; in between this rank does ``meanwhile()``."""
    for rank in workers:
        messages.send(comm, pack(meta, {}), rank)
    meanwhile()
    for rank in workers:
        messages.send(comm, pack({}, {}), rank)
    numbers = {}
    for rank in workers:
        buffer, _ = messages.receive(comm, rank)
        answer, _ = unpack(buffer)
        numbers[rank] = answer["number"]
    return numbers


def _pair(comm, rank, is_long):
    """Measurements between this rank and another: ``round_trip_s`` of 8 bytes, ``clock_s`` (the other clock less this
    one) and ``clock_error_s``, ``rates`` in bytes a second one way, by bytes sent; and ``bare_...``, by MPI alone."""
    pair = {"rates": {}, "bare_rates": {}}
    for bare, prefix in KINDS:
        trips = _trips(comm, rank, 8, SHORT_TRIPS, bare)
        median = np.median([seconds for seconds, _ in trips])
        pair[prefix + "round_trip_s"] = float(median)
        if not bare:
            # The fastest trip tells the time best.
            seconds, pair["clock_s"] = min(trips)
            pair["clock_error_s"] = seconds / 2
    lengths = [LENGTH]
    if is_long:
        lengths.append(LONG_LENGTH)
    for num_bytes in lengths:
        for bare, prefix in KINDS:
            trips = _trips(comm, rank, num_bytes, LONG_TRIPS, bare)
            fastest = min(seconds for seconds, _ in trips)
            pair[prefix + "rates"][num_bytes] = 2 * num_bytes / fastest
    return pair


def _trips(comm, rank, num_bytes, times, bare):
    """``[(seconds, the other clock less this one)]`` of each message to ``rank`` and back, without the first, a
    warm-up."""
    meta = {"what": "echo", "bytes": num_bytes, "times": times, "bare": bare}
    messages.send(comm, pack(meta, {}), rank)
    buffer = np.zeros(num_bytes, np.uint8)
    trips = []
    for _ in range(times):
        start = time.perf_counter()
        now = time.time()
        if bare:
            comm.Send([buffer, MPI.BYTE], rank, PART)
            comm.Recv([buffer, MPI.BYTE], rank, PART)
        else:
            messages.send(comm, buffer, rank)
            buffer = messages.receive(comm, rank)[0]
        seconds = time.perf_counter() - start
        other_time = float(buffer[-8:].view(np.float64)[0])
        trips.append((seconds, other_time - now - seconds / 2))
    return trips[1:]


def _broadcast(comm, buffer, bare):
    if bare:
        comm.Bcast([buffer, MPI.BYTE])
    else:
        messages.broadcast(comm, buffer)
    messages.barrier(comm)


def be_probed(comm):
    """A worker's side of ``Mpi.probe``."""
    while True:
        buffer, _ = messages.receive(comm, 0)
        meta, _ = unpack(buffer)
        if meta["what"] == "end":
            break
        if meta["what"] == "echo":
            _echo(comm, meta["bytes"], meta["times"], meta["bare"])
        else:
            share = _share_of_core(comm, meta)
            messages.send(comm, pack({"number": share}, {}), 0)
    comm.Free()


def _share_of_core(comm, meta):
    """This rank's share of a core, until rank 0's next message; it may take part in a broadcast before."""
    start = time.perf_counter()
    start_cpu = time.process_time()
    if meta["what"] == "broadcast":
        buffer = np.empty(meta["bytes"], np.uint8)
        _broadcast(comm, buffer, meta["bare"])
    messages.receive(comm, 0)
    cpu_s = time.process_time() - start_cpu
    return cpu_s / (time.perf_counter() - start)


def _echo(comm, num_bytes, times, bare):
    """Send each message back, with this rank's time in its last 8 bytes."""
    buffer = np.empty(num_bytes, np.uint8)
    for _ in range(times):
        if bare:
            comm.Recv([buffer, MPI.BYTE], 0, PART)
        else:
            buffer = messages.receive(comm, 0)[0]
        buffer[-8:].view(np.float64)[0] = time.time()
        if bare:
            comm.Send([buffer, MPI.BYTE], 0, PART)
        else:
            messages.send(comm, buffer, 0)


THREADS = {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled",
           MPI.THREAD_SERIALIZED: "serialized", MPI.THREAD_MULTIPLE: "multiple"}


def library():
    """The loaded MPI library, for JSON."""
    first_line, _, _ = MPI.Get_library_version().partition("\n")
    # Some libraries end their text by a zero byte.
    name = " ".join(first_line.strip("\0 ").split())
    standard = ".".join(map(str, MPI.Get_version()))
    return {
        "library": name,
        "mpi4py": mpi4py.__version__,
        "standard": standard,
        "binary": os.path.basename(MPI.__file__),
        "threads": THREADS[MPI.Query_thread()],
        "cuda_aware": cuda_aware(),
    }


def cuda_aware():
    """Whether this MPI says it takes pointers to GPU memory; None if it has no word for it.

    This transport does not use it, see staging."""
    # Open MPI and MPICH have the same function, outside every standard and outside mpi4py.
    query = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    if query is None:
        return None
    return bool(query())
