"""Messages between ranks over MPI, and polite waiting.

A waiting rank probes, then sleeps for a tenth of its wait so far, 5 ms at most: a wait costs next to no processor, and
delays by a tenth at most. Rank 0 and the workers of its machine wake each other, see ``wakeup``, and need not look;
workers sleep longer the more of them share a core. Control and jobs go point to point, messages to every worker along
a tree. In every function, ``check()`` is called while waiting, and raises if waiting is in vain.
"""

import os
import socket
import sys
import time
import zlib
from functools import partial
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from fedmpi.core.errors import WireError
from fedmpi.transport.wakeup import wake
from fedmpi.wire import frame
from fedmpi.wire.frame import unpack

# Looks before a rank sleeps.
LOOKS = 4
# Seconds a rank sleeps before it looks again.
LONGEST_S = 0.005
# The same for a rank woken by a signal: only signals to stop are noticed later.
RUNG_S = 0.025
# Bytes a message, below the 2^31 of older MPI libraries.
CHUNK = 1 << 30
# Tags: a message or a chunk of one, a broadcast, the number of bytes of the chunks that follow.
PART, TREE, SIZE = 1, 2, 3
# Bytes of arrays from which on a message is sent, or published, without a copy of its own.
LARGE = 16 << 20
# Tags above every signal's number: a first message and its answer, a leaving rank.
READY, GONE = 1000, 1001
# The answer asking a rank in; any other answer is its exit code.
COME = -1


def nap(waited):
    """Sleep, after having waited ``waited`` seconds."""
    time.sleep(min(waited / 10, LONGEST_S))


def wait(done, check=lambda: None, nap=nap):
    """Call ``done()`` until it is true; in between, after some looks, ``nap(seconds waited)``."""
    start = time.perf_counter()
    looks = 0
    while not done():
        check()
        looks += 1
        if looks < LOOKS:
            time.sleep(0)
        elif nap(time.perf_counter() - start):
            # Woken: look several times again, since MPICH may find a message only by its second or third probe.
            start = time.perf_counter()
            looks = 0


def send(comm, buffer, rank, check=lambda: None, pid=None):
    """Send ``buffer (bytes,) uint8`` to ``rank`` in chunks, and wait until it is gone.

    ``pid`` is the rank's process, if it may be dozing on this machine.
    """
    send_pieces(comm, [buffer], rank, check, pid)


def send_pieces(comm, pieces, rank, check=lambda: None, pid=None):
    """``send`` of one message in ``pieces``, see ``in_pieces``."""
    requests = post_pieces(comm, pieces, rank)
    wake(pid)
    wait(partial(MPI.Request.Testall, requests), check)


def post(comm, buffer, rank):
    """The requests of a ``send`` without waiting; the buffer must stay until they are done."""
    return post_pieces(comm, [buffer], rank)


def post_pieces(comm, pieces, rank):
    """``post`` of one message in ``pieces``, each uint8 (bytes,)."""
    chunks = []
    for piece in pieces:
        # An empty message has a chunk, too.
        for start in range(0, max(1, len(piece)), CHUNK):
            chunks.append(piece[start: start + CHUNK])
    requests = []
    if len(chunks) > 1:
        num_bytes = sum(map(len, pieces))
        # A request keeps its own buffer alive.
        requests.append(comm.Isend(np.array([num_bytes]), rank, SIZE))
    for chunk in chunks:
        requests.append(comm.Isend([chunk, MPI.BYTE], rank, PART))
    return requests


def in_pieces(meta, arrays):
    """A message as pieces for ``post_pieces``: one buffer, or the arrays themselves if they are large."""
    if sum(array.nbytes for array in arrays.values()) >= LARGE:
        return frame.pieces(meta, arrays)
    return [frame.pack(meta, arrays)]


def receive(comm, source=MPI.ANY_SOURCE, check=lambda: None, tag=MPI.ANY_TAG, nap=nap, into=None):
    """``(buffer, source)`` of the next message.

    The buffer is new memory, or the beginning of ``into``, uint8, which must be long enough.
    """
    status = MPI.Status()
    chunk = _receive_chunk(comm, source, check, tag, nap, status, into)
    # The chunks of one message come from one rank.
    source = status.Get_source()
    if status.Get_tag() != SIZE:
        return chunk, source
    num_bytes = int(chunk.view(np.int64)[0])
    if into is None:
        into = np.empty(num_bytes, np.uint8)
    start = 0
    while start < num_bytes:
        chunk = _receive_chunk(comm, source, check, tag, nap, status, into[start:])
        start += len(chunk)
    return into[:num_bytes], source


def _receive_chunk(comm, source, check, tag, nap, status, into):
    message = None

    def arrived():
        nonlocal message
        message = comm.Improbe(source, tag, status)
        return message is not None

    wait(arrived, check, nap)
    num_bytes = status.Get_count(MPI.BYTE)
    if into is None:
        into = np.empty(num_bytes, np.uint8)
    chunk = into[:num_bytes]
    message.Recv([chunk, MPI.BYTE])
    return chunk


def broadcast(comm, buffer, check=lambda: None):
    """Rank 0's ``buffer`` into everybody's, along a binomial tree.

    With 33 ranks on 2 cores this took 20 ms for 0.5 MB and 52 ms for 6.3 MB; MPI's own Bcast, with
    spinning ranks, 144 and 173 ms.
    """
    parent, children = _tree(comm.rank, comm.size)
    num_bytes = len(buffer)
    for start in range(0, num_bytes, CHUNK):
        chunk = buffer[start: start + CHUNK]
        part = [chunk, MPI.BYTE]
        if parent is not None:
            request = comm.Irecv(part, parent, TREE)
            wait(request.Test, check)
        requests = [comm.Isend(part, child, TREE) for child in children]
        wait(partial(MPI.Request.Testall, requests), check)


def _tree(rank, size):
    """``(parent, children)`` of a rank in the binomial tree; rank 0 has no parent, None."""
    parent = None
    # The lowest bit set: the distance to the parent. Children are nearer.
    distance = 1 << 30
    if rank:
        parent = rank & (rank - 1)
        distance = rank & -rank
    children = []
    # The farthest first: it has the most descendants.
    for bit in range(29, -1, -1):
        step = 1 << bit
        if step < distance and rank + step < size:
            children.append(rank + step)
    return parent, children


class Adding:
    """Sums of everybody's pieces of int64, along a binomial tree, one piece after the other."""

    def __init__(self, comm):
        self.comm = comm
        # One holds the sum so far, the other the piece that is added to it.
        self.buffers = [np.empty(0, np.int64)] * 2
        self.free = 0

    def up(self, total, n, check=lambda: None):
        """``(sum, bytes received)`` of everybody's ``total (n,) int64``.

        On rank 0 the sum of all, on other ranks of themselves and their descendants. None adds
        nothing. ``total`` is not changed. The next piece overwrites the sum.
        """
        comm, rank = self.comm, self.comm.rank
        step = 1
        received = 0
        while step < comm.size:
            if rank & step:
                send(comm, _bytes_of(total), rank - step, check)
                break
            if rank + step < comm.size:
                part = self._received(n, rank + step, check)
                received += part.nbytes
                total = self._sum_of(total, part)
            step *= 2
        return total, received

    def _received(self, n, source, check):
        """(n,) or (0,) int64: the piece of the rank ``source``, in the free buffer."""
        buffer = self.buffers[self.free]
        if len(buffer) < n:
            buffer = np.empty(n, np.int64)
            self.buffers[self.free] = buffer
        memory = buffer.view(np.uint8)
        content, _ = receive(self.comm, source, check, into=memory)
        return content.view(np.int64)

    def _sum_of(self, total, part):
        """The sum of two pieces, in the memory of ``part``; None and no entries add nothing."""
        if not len(part):
            return total
        self.free = 1 - self.free
        if total is None:
            return part
        return np.add(part, total, out=part)


def _bytes_of(total):
    """A sum as bytes; an empty message if there is none."""
    if total is None:
        return np.empty(0, np.uint8)
    return total.view(np.uint8)


def nudge(rank, number=0):
    """Send ``rank`` an empty message out of order; it is on its way when this returns."""
    return MPI.COMM_WORLD.Isend([bytearray(0), MPI.BYTE], rank, number)


class Words(NamedTuple):
    """Answers on their way: the requests, and their buffer, to be kept until they are done."""

    requests: list
    buffer: np.ndarray


def answer(ranks, word):
    """Answer the first messages of ``ranks``, by COME or an exit code.

    A rank still without a first message finds the answer later.
    """
    buffer = np.array([word])
    requests = [MPI.COMM_WORLD.Isend(buffer, rank, READY) for rank in ranks]
    return Words(requests, buffer)


def answered(check=lambda: None):
    """Rank 0's answer to this rank's first message; waits politely."""
    buffer, _ = receive(MPI.COMM_WORLD, 0, check, READY)
    return int(buffer.view(np.int64)[0])


def dismiss(code, patience_s):
    """Let the other ranks end with ``code``, each as soon as it arrives.

    None of them may have been asked in. Whether all have left within ``patience_s`` seconds.
    """
    staying = set(range(1, MPI.COMM_WORLD.size))
    give_up = time.monotonic() + patience_s
    words = answer(staying, code)

    def all_left():
        # The ranks' first messages are not read.
        while MPI.COMM_WORLD.Iprobe(tag=READY):
            receive(MPI.COMM_WORLD, tag=READY)
        while MPI.COMM_WORLD.Iprobe(tag=GONE):
            _, rank = receive(MPI.COMM_WORLD, tag=GONE)
            staying.discard(rank)
        return not staying

    wait(lambda: all_left() or time.monotonic() > give_up)
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
    color = 0 if node.rank == 0 else MPI.UNDEFINED
    return node, comm.Split(color, comm.rank)


def mates(node, comm):
    """The workers of this node, a communicator: all its ranks but rank 0, which has no use of it."""
    color = 0 if comm.rank else MPI.UNDEFINED
    return node.Split(color, node.rank)


def crowding(node):
    """The number of this node's ranks per core; the cores are the ones any of them may run on."""
    cores = np.zeros(1 << 13, np.uint8)
    own_cores = list(os.sched_getaffinity(0))
    cores[own_cores] = 1
    node.Allreduce(MPI.IN_PLACE, cores, MPI.MAX)
    return node.size / np.count_nonzero(cores)


def server_process(comm):
    """The process of ``comm``'s rank 0 if it runs on this machine, else None; all ranks ask at once."""
    host = zlib.crc32(socket.gethostname().encode())
    server = np.array([os.getpid(), host])
    comm.Bcast(server)
    pid, server_host = server.tolist()
    if server_host != host:
        return None
    return pid


def among(node, comm):
    """``(first rank of this node, number of this rank among the node's workers)``; rank 0 is no worker, and not
    counted."""
    first = MPI.Group.Translate_ranks(node.group, [0], comm.group)[0]
    return first, node.rank - (first == 0)


def world():
    """``(rank, size)`` as MPI itself sees them."""
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


def threads():
    """Whether this MPI lets a second thread send beats; without, hanging ranks are not noticed."""
    return MPI.Query_thread() == MPI.THREAD_MULTIPLE


def opened(buffer, what):
    """``unpack``; its WireError begins with ``what``, the damaged thing."""
    try:
        return unpack(buffer)
    except WireError as error:
        raise WireError(f"{what} {error}") from error


def abort(code):
    """End the whole job at once: after a failure, while other ranks may be in the middle of their work."""
    sys.stdout.flush()
    sys.stderr.flush()
    # When a job aborts, mpirun drops the unread rest of our pipes.
    time.sleep(0.3)
    MPI.COMM_WORLD.Abort(code)
    # Abort may return before the launcher has killed us.
    os._exit(code)
