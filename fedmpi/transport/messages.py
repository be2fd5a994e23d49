"""Messages between ranks over MPI, and waiting that is polite.

A rank that waits probes, then sleeps for a tenth of the time it has waited so far, 5 ms at most, so a wait costs next
to no processor and delays by a tenth at most. Rank 0 and the workers of its machine wake each other, see ``bell``, and
so need not look; workers sleep longer the more of them share a core. Control and jobs go point to point, what every
worker needs along a tree. ``check()`` of all that waits raises where waiting is in vain.
"""

import os
import socket
import sys
import time
import zlib
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from fedmpi.core.errors import WireError
from fedmpi.transport.bell import ring
from fedmpi.wire.frame import unpack

LOOKS = 4                 # before a rank sleeps
LONGEST_S = 0.005         # that a rank sleeps before it looks again
RUNG_S = 0.025            # where it is woken when there is something: only signals to stop are noticed later
CHUNK = 1 << 30           # bytes a message, below the 2^31 that older MPI libraries count
LAST, MORE, TREE = 1, 2, 3  # tags: a message's last chunk, one that others follow, a broadcast
READY, GONE = 1000, 1001  # tags above every signal's number: a first message and its answer, a rank that leaves
COME = -1                 # the answer that asks a rank in; any other is the exit code that it leaves with


def nap(waited):
    """Sleep, having waited so many seconds."""
    time.sleep(min(waited / 10, LONGEST_S))


def wait(done, check=lambda: None, nap=nap):
    """Call ``done()`` until it is true, in between, after some looks, ``nap(seconds waited)``; ``check()`` raises where
    waiting is in vain. Where ``nap`` says that it was woken, this looks as often again: a message that has come is
    found by MPICH's second probe, or its third, not always by the first."""
    start, looks = time.perf_counter(), 0
    while not done():
        check()
        looks += 1
        if looks < LOOKS:
            time.sleep(0)
        elif nap(time.perf_counter() - start):
            start, looks = time.perf_counter(), 0


def send(comm, buffer, rank, check=lambda: None, pid=None):
    """Send ``buffer (bytes,) uint8`` to ``rank`` in chunks; ``check`` as for ``wait``, here and below. ``pid`` is the
    rank's process, where that may be dozing on this machine."""
    requests = post(comm, buffer, rank)
    ring(pid)
    wait(lambda: MPI.Request.Testall(requests), check)


def post(comm, buffer, rank):
    """The requests of a ``send`` that is not waited for; the buffer must stay until they are done."""
    return [comm.Isend([buffer[s: s + CHUNK], MPI.BYTE], rank, MORE if s + CHUNK < len(buffer) else LAST)
            for s in range(0, len(buffer), CHUNK)]


def receive(comm, source=MPI.ANY_SOURCE, check=lambda: None, tag=MPI.ANY_TAG, nap=nap):
    """``(buffer, source)`` of the next message; ``nap`` as for ``wait``."""
    parts, status = [], MPI.Status()
    while True:
        found = []
        wait(lambda: (m := comm.Improbe(source, tag, status)) is not None and not found.append(m), check, nap)
        part = np.empty(status.Get_count(MPI.BYTE), np.uint8)
        found[0].Recv([part, MPI.BYTE])
        parts.append(part)
        source = status.Get_source()
        if status.Get_tag() != MORE:
            return parts[0] if len(parts) == 1 else np.concatenate(parts), source


def broadcast(comm, buffer, check=lambda: None):
    """Rank 0's ``buffer`` into everybody's, along a binomial tree. With 33 ranks on 2 cores this took 20 ms for 0.5 MB
    and 52 ms for 6.3 MB; MPI's own Bcast, whose ranks spin, 144 and 173 ms."""
    rank, size = comm.rank, comm.size
    nearest = rank & -rank if rank else 1 << 30
    steps = [1 << bit for bit in range(29, -1, -1)]
    children = [rank + step for step in steps if step < nearest and rank + step < size]
    for start in range(0, len(buffer), CHUNK):
        part = [buffer[start: start + CHUNK], MPI.BYTE]
        if rank:
            request = comm.Irecv(part, rank & (rank - 1), TREE)
            wait(request.Test, check)
        requests = [comm.Isend(part, child, TREE) for child in children]
        wait(lambda: MPI.Request.Testall(requests), check)


def add_up(comm, total, check=lambda: None):
    """Add everybody's ``total (n,) int64`` up, along a binomial tree: ``(sum, bytes received)`` of this rank and those
    below it, on rank 0 of all. None adds nothing."""
    rank, step, received = comm.rank, 1, 0
    while step < comm.size:
        if rank & step:
            send(comm, total.view(np.uint8), rank - step, check)
            break
        if rank + step < comm.size:
            part = receive(comm, rank + step, check)[0].view(np.int64)
            received += part.nbytes
            total = part if total is None else np.add(part, total, out=part)
        step *= 2
    return total, received


def nudge(rank, number=0):
    """Send ``rank`` an empty message out of order; it is on its way when this returns."""
    return MPI.COMM_WORLD.Isend([bytearray(0), MPI.BYTE], rank, number)


class Words(NamedTuple):
    """Answers that are on their way: the requests, and the buffer that must stay until they are done."""

    requests: list
    buffer: np.ndarray


def answer(ranks, word):
    """Answer the first messages of ``ranks``, by COME or an exit code; a rank that has not sent one finds it later."""
    buffer = np.array([word])
    return Words([MPI.COMM_WORLD.Isend(buffer, rank, READY) for rank in ranks], buffer)


def answered(check=lambda: None):
    """Rank 0's answer to this rank's first message; waits for it politely."""
    buffer, _ = receive(MPI.COMM_WORLD, 0, check, READY)
    return int(buffer.view(np.int64)[0])


def dismiss(code, patience_s):
    """Let the other ranks, none of which was asked in, end with ``code``, each as soon as it arrives; whether all have
    left within ``patience_s`` seconds."""
    staying = set(range(1, MPI.COMM_WORLD.size))
    give_up = time.monotonic() + patience_s
    words = answer(staying, code)

    def empty():
        while MPI.COMM_WORLD.Iprobe(tag=READY):
            receive(MPI.COMM_WORLD, tag=READY)             # nobody reads what a rank had to say
        while MPI.COMM_WORLD.Iprobe(tag=GONE):
            staying.discard(receive(MPI.COMM_WORLD, tag=GONE)[1])
        return not staying

    wait(lambda: empty() or time.monotonic() > give_up)
    return not staying and MPI.Request.Testall(words.requests)


def barrier(comm, check=lambda: None):
    """Wait, politely, until every rank is here."""
    request = comm.Ibarrier()
    wait(request.Test, check)


def duplicate(comm, check=lambda: None):
    """``comm``'s ranks with a traffic of their own; waits, politely, until all have asked for it."""
    copy, request = comm.Idup()
    wait(request.Test, check)
    return copy


def nodes(comm):
    """``(the ranks of this node, one leader a node)``, communicators; the second is of use on leaders only."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
    return node, comm.Split(0 if node.rank == 0 else MPI.UNDEFINED, comm.rank)


def crowding(node):
    """How many ranks of this node there are for a core that any of them may run on."""
    cores = np.zeros(1 << 13, np.uint8)
    cores[list(os.sched_getaffinity(0))] = 1
    node.Allreduce(MPI.IN_PLACE, cores, MPI.MAX)
    return node.size / np.count_nonzero(cores)


def server_process(comm):
    """The process of ``comm``'s rank 0 where that runs on this machine, else None; all ranks ask at once."""
    told = np.array([os.getpid(), zlib.crc32(socket.gethostname().encode())])
    here = int(told[1])
    comm.Bcast(told)
    return int(told[0]) if told[1] == here else None


def among(node, comm):
    """``(first rank of this node, number of this rank among the node's workers)``; rank 0 is none and not counted."""
    first = MPI.Group.Translate_ranks(node.group, [0], comm.group)[0]
    return first, node.rank - (first == 0)


def world():
    """``(rank, size)`` as MPI itself sees them."""
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


def threads():
    """Whether this MPI lets a second thread send beats; without, ranks that hang are not noticed."""
    return MPI.Query_thread() == MPI.THREAD_MULTIPLE


def opened(buffer, what):
    """``unpack``, whose WireError says ``what`` was damaged."""
    try:
        return unpack(buffer)
    except WireError as error:
        raise WireError(f"{what} {error}") from error


def abort(code):
    """End the whole job at once: after a failure, when other ranks may be in the middle of their work."""
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(0.3)                   # mpirun drops what it has not yet read from our pipes when a job aborts
    MPI.COMM_WORLD.Abort(code)
    os._exit(code)                    # it may come back before the launcher has killed us
