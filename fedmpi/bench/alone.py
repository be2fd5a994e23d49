"""What a large round cannot do without, done alone on the same ranks: bytes copied, sent and
written, and a step of torch's own AdamW.

Each is measured in pieces of PIECE values, which are far larger than a cache, and scaled: whole
vectors once more would not fit beside those of the round.
"""

import os
import time

import numpy as np
import torch

from fedmpi.core.errors import UserError

# Values of float32 a piece: 64 MiB.
PIECE = 1 << 24
PIECE_BYTES = 4 * PIECE
# Each is done so often; the first time touches the memory.
TIMES = 3


class Side:
    """Rank 0's part of a measurement, and a worker's: the same jobs for both."""

    def run(self, job, arrays):
        """The answer of the method that ``job["alone"]`` names: its seconds."""
        method = getattr(self, job["alone"])
        seconds = method() or 0.0
        return {}, {"seconds": np.array([seconds])}

    def open(self):
        """Open a communicator of the bench's own, on all ranks at the same time."""
        from fedmpi.transport import messages
        self.comm = messages.duplicate(messages.MPI.COMM_WORLD)
        self.source = np.ones(PIECE, np.float32)
        self.target = np.zeros(PIECE, np.float32)

    def copied(self):
        """Seconds to copy a piece."""
        return _fastest(lambda: np.copyto(self.target, self.source))

    def stepped(self):
        """Seconds of a step of ``torch.optim.AdamW`` on a piece, with moments of its own."""
        x = torch.zeros(PIECE, requires_grad=True)
        x.grad = torch.full((PIECE,), 0.01)
        optimiser = torch.optim.AdamW([x], fused=True)
        return _fastest(optimiser.step)

    def spread(self):
        """Seconds until everybody has a piece of rank 0, by MPI's own broadcast."""
        return self._together(lambda: self.comm.Bcast(self.target))

    def sent(self):
        """Seconds until rank 0 has a piece of everybody, one after the other."""
        def gather():
            if self.comm.rank:
                self.comm.Send(self.source, 0)
                return
            for rank in range(1, self.comm.size):
                self.comm.Recv(self.target, rank)

        return self._together(gather)

    def _together(self, work):
        """Seconds of ``work()`` of all ranks, which begin at the same time."""
        def timed():
            self.comm.Barrier()
            return _seconds(work)

        return min(timed() for _ in range(TIMES))


def _seconds(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _fastest(work):
    """The fewest seconds of a few times ``work()``."""
    return min(_seconds(work) for _ in range(TIMES))


def written(folder, num_bytes):
    """Seconds to write a file of so many bytes to ``folder`` and to wait for the disk.

    The file is removed. UserError if the folder takes no file.
    """
    path = os.path.join(folder, "alone.tmp")
    piece = np.ones(min(PIECE_BYTES, num_bytes), np.uint8)
    begin = time.perf_counter()
    try:
        with open(path, "wb") as file:
            left = num_bytes
            while left > 0:
                file.write(piece[:left])
                left -= len(piece)
            file.flush()
            os.fsync(file.fileno())
        seconds = time.perf_counter() - begin
        os.unlink(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another --folder") from error
    return seconds
