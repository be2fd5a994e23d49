"""What a large round cannot do without, done alone on the same ranks: bytes copied, sent and
written, and a step of torch's own AdamW.

Each is done piece by piece, of PIECE values, which are larger than a cache: whole vectors once
more would not fit beside those of the round.
"""

import math
import os
import time
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.core.errors import UserError

# Values of float32 a piece: 64 MiB.
PIECE = 1 << 24
PIECE_BYTES = 4 * PIECE


class Taken(NamedTuple):
    """Seconds by the clock, and of this process's processor time."""

    wall: float
    busy: float


class Side:
    """Rank 0's part of a measurement, and a worker's: the same jobs for both."""

    def run(self, job, arrays):
        """What the method that ``job["alone"]`` names takes, for ``job["pieces"]``: a Taken."""
        method = getattr(self, job["alone"])
        taken = method(job["pieces"]) or ()
        return {}, {"taken": np.array(taken)}

    def open(self, pieces):
        """Open a communicator of the bench's own, on all ranks at the same time."""
        from fedmpi.transport import messages
        self.messages = messages
        self.comm = messages.duplicate(messages.MPI.COMM_WORLD)
        self.source = np.ones(PIECE, np.float32)
        self.target = np.zeros(PIECE, np.float32)

    def copied(self, pieces):
        """Copies of so many pieces."""
        return _taken(lambda: np.copyto(self.target, self.source), pieces)

    def stepped(self, pieces):
        """Steps of ``torch.optim.AdamW`` on pieces, with moments of their own.

        Each gradient lies in fresh memory, as a backward pass leaves it.
        """
        x = torch.zeros(PIECE, requires_grad=True)
        optimiser = torch.optim.AdamW([x], fused=True)

        def work():
            x.grad = None
            x.grad = torch.full((PIECE,), 0.01)
            optimiser.step()

        return _taken(work, pieces)

    def spread(self, pieces):
        """The way of pieces from rank 0 to everybody, at once."""
        def work():
            if self.comm.rank:
                self._wait([self.comm.Irecv(self.target, 0)])
                return
            others = range(1, self.comm.size)
            self._wait([self.comm.Isend(self.source, rank) for rank in others])

        return self._at_once(work, pieces)

    def sent(self, pieces):
        """The way of pieces from everybody to rank 0, one rank after the other."""
        def work():
            if self.comm.rank:
                self._wait([self.comm.Isend(self.source, 0)])
                return
            for rank in range(1, self.comm.size):
                self._wait([self.comm.Irecv(self.target, rank)])

        return self._at_once(work, pieces)

    def _wait(self, requests):
        """Wait as ranks of ours do: MPI's own waiting would burn the others' processor time."""
        self.messages.wait(partial(self.messages.MPI.Request.Testall, requests))

    def _at_once(self, work, pieces):
        """``work()`` of all ranks, which begin at the same time."""
        self.messages.barrier(self.comm)
        return _taken(work, pieces)


def _taken(work, pieces):
    """The ``Taken`` of ``work()`` once a piece, after a first time that touches memory.

    The last piece may be a part of one, which takes its part of the time.
    """
    work()
    whole = math.ceil(pieces)
    begin, begin_busy = time.perf_counter(), time.process_time()
    for _ in range(whole):
        work()
    wall_s = time.perf_counter() - begin
    busy_s = time.process_time() - begin_busy
    share = pieces / whole
    return Taken(wall_s * share, busy_s * share)


def written(folder, num_bytes):
    """The ``Taken`` of a file of so many bytes in ``folder``, until it is on the disk.

    The file is removed. UserError if the folder takes no file.
    """
    path = os.path.join(folder, "alone.tmp")
    piece = np.ones(min(PIECE_BYTES, num_bytes), np.uint8)
    begin, begin_busy = time.perf_counter(), time.process_time()
    try:
        with open(path, "wb") as file:
            left = num_bytes
            while left > 0:
                file.write(piece[:left])
                left -= len(piece)
            file.flush()
            os.fsync(file.fileno())
        taken = Taken(time.perf_counter() - begin, time.process_time() - begin_busy)
        os.unlink(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another --folder") from error
    return taken
