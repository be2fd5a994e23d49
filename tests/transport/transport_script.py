"""What tests/transport/test_transport.py starts under mpirun: a transport without torch, asked for everything
it offers."""

import os
import sys
import tempfile
import traceback

import numpy as np
from mpi4py import MPI

from fedmpi.core.errors import WorkerError
from fedmpi.transport import base, messages
from fedmpi.transport.mpi import Mpi
from fedmpi.transport.serve import serve

messages.LARGE = 20_000
messages.CHUNK = 1000                          # a message of many chunks, without 2 GiB of it
base.PIECE = 300                               # a sum of several pieces


class Echo:
    """A worker that answers with what it was given."""

    def receive(self, meta, arrays):
        if meta["kind"] == "data":
            self.arrays, self.local_rank, self.memory = arrays, meta["local_rank"], meta["memory"]
        elif meta["kind"] == "rooms":
            # Every worker of the node adds up in the same memory.
            self.room = self.memory(16)
            with self.room.lock(1):
                self.room.content.view(np.int64)[1] += 1 << MPI.COMM_WORLD.rank
        else:
            self.published = arrays["values"].copy()

    def run(self, job, arrays):
        messages.CHUNK = job.get("chunk", messages.CHUNK)
        if "rooms" in job:
            return job, {"sums": self.room.content.view(np.int64), "first": np.array([self.room.is_first])}
        assert arrays.keys() == ({"own"} if job.get("given") else set())
        if job["client"] == job.get("broken"):
            raise ValueError("client task failed on purpose")
        total = float(self.published.sum()) + float(self.arrays["data"].sum()) + self.arrays["empty"].size
        return {"client": job["client"]}, {"total": np.array([total]), "big": np.full(job["client"] * 100, 7.0),
                                           "local_rank": np.array([self.local_rank])}

    def total(self, start, stop):
        """The powers of 2 by rank, which no other sum of ranks gives; rank 2 adds nothing behind entry 600."""
        if start >= 600 and MPI.COMM_WORLD.rank == 2:
            return None
        return np.arange(start, stop) + (1 << MPI.COMM_WORLD.rank)


def crossing(transport):
    """Jobs and answers so large that either waits until the other side takes it."""
    messages.CHUNK = 1 << 30
    large = [{"own": np.full(1 << 18, n)} for n in range(3 * transport.size)]
    jobs = [{"client": n % 3 * 3000, "given": True, "chunk": messages.CHUNK} for n in range(len(large))]
    assert sorted(reply.index for reply in transport.map(jobs, large)) == list(range(len(large)))
    # Rank 0 sends 2 MiB as 32 chunks, not as 2000, each of which MPICH holds back until the other side looks.
    messages.CHUNK = 1 << 16
    list(transport.map([{"client": n, "given": True, "chunk": 1000} for n in range(len(large))], large))
    messages.CHUNK = 1000


def shared_once_a_node(transport, data):
    """A large message, and memory that workers write to."""
    for t in range(2):
        values = np.arange(4000.0) + t
        assert transport.publish({"kind": "round"}, {"values": values}) > values.nbytes
        for reply in transport.map([{"client": n} for n in range(6)]):
            assert reply.arrays["total"][0] == values.sum() + data.sum()
    transport.publish({"kind": "rooms"}, {})
    # Every worker is behind the message when it adds here.
    transport.total(1)
    sums = set()
    for reply in transport.map([{"client": n, "rooms": True} for n in range(8 * transport.size)]):
        ranks = int(reply.arrays["sums"][1])
        sums.add(ranks)
        # A bit a rank of the node, the lowest that of its first.
        assert ranks & (1 << reply.rank)
        assert reply.arrays["first"][0] == (ranks & -ranks == 1 << reply.rank)
    # Nodes have different ranks.
    assert sum(sums) <= (1 << transport.size) - 2
    if transport.nodes[0].size == transport.size:
        assert sums == {(1 << transport.size) - 2}


def main():
    if MPI.COMM_WORLD.rank:
        sys.exit(serve("version", Echo))
    transport = Mpi("version")
    data = np.arange(5000, dtype=np.float32).reshape(50, 100)
    for data in (data * 2, data):            # the second takes the place of the first
        transport.share({"kind": "data"}, {"data": data, "empty": np.zeros((0, 3), np.int64)})
    for t in range(3):
        values = np.arange(1000.0) + t
        size = transport.publish({"kind": "round"}, {"values": values})
        assert size > values.nbytes
        replies = list(transport.map([{"client": n, "given": True} for n in range(40)],
                                     [{"own": np.full(n, n)} for n in range(40)]))
        assert sorted(reply.index for reply in replies) == list(range(40))
        for reply in replies:
            assert reply.meta["client"] == reply.index
            assert reply.arrays["total"][0] == values.sum() + data.sum()
            assert reply.arrays["big"].shape == (reply.index * 100,)
            assert reply.reply_bytes > reply.index * 800 and reply.job_bytes > 0
        assert {reply.rank for reply in replies} == set(range(1, transport.size)) or transport.size > 10
    assert not [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("fedmpi-")], "shared file left"
    shared_once_a_node(transport, data)
    crossing(transport)
    received = transport.received
    expected = np.arange(900) * (transport.size - 1) + (1 << transport.size) - 2
    assert (transport.total(600) == expected[:600]).all()
    node, leaders = transport.nodes
    levels = (node.size - 1).bit_length() + (leaders.size - 1).bit_length()
    assert transport.received - received == 8 * 600 * levels      # what rank 0 took in: a sum a level of both trees
    if transport.size > 2:
        expected[600:] -= np.arange(600, 900) + 4
    starts = []
    transport.total_pieces(900, lambda start, piece: starts.append((start, (piece == expected[start:][:300]).all())))
    assert starts == [(0, True), (300, True), (600, True)]
    assert transport.sent > 0 and transport.received > sum(reply.reply_bytes for reply in replies)
    try:
        list(transport.map([{"client": n, "broken": 3} for n in range(5)]))
    except WorkerError as error:
        assert "client task failed on purpose" in error.trace and error.rank > 0
    else:
        raise AssertionError("a worker's exception was lost")
    print(f"everything arrived on {leaders.size} nodes")
    sys.stdout.flush()
    transport.close(0)


try:
    main()
except Exception:
    traceback.print_exc()
    messages.abort(1)
