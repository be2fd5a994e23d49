"""Large read-only arrays in the memory of every node once, shared by its ranks."""

import os
import socket
import tempfile

import numpy as np

from fedmpi.core.errors import DiskError, WireError
from fedmpi.transport import messages
from fedmpi.wire.frame import checksum


def share(nodes, table, arrays=None, check=lambda: None):
    """The arrays of ``table``: one file a node, mapped by its ranks and already unlinked, so nothing is left behind
    however the job ends. Rank 0 brings them; one leader a node receives them, the last rank checks the sums."""
    node, leaders = nodes
    sizes = [max(1, int(np.prod(shape, dtype=np.int64))) * np.dtype(dtype).itemsize for _, dtype, shape, _ in table]
    starts = np.concatenate([[0], np.cumsum([-(-size // 4096) * 4096 for size in sizes])]).astype(int)
    path = np.zeros(4096, np.uint8)
    if node.rank == 0:
        handle, name = tempfile.mkstemp(prefix="fedmpi-")
        encoded = np.frombuffer(os.fsencode(name), np.uint8)
        path[: len(encoded)] = encoded
        try:
            os.posix_fallocate(handle, 0, int(starts[-1]))
        except OSError as error:
            os.unlink(name)
            raise DiskError(f"no room for {starts[-1]:,} bytes of data, shared by the ranks of "
                            f"{socket.gethostname()}, in {tempfile.gettempdir()} ({error.strerror}): set TMPDIR to "
                            "another folder") from error
        os.close(handle)
        data = np.memmap(name, np.uint8, "r+")
        for start, size, (key, *_) in zip(starts, sizes, table):
            if arrays is not None and arrays[key].size:
                data[start: start + size] = np.ascontiguousarray(arrays[key]).reshape(-1).view(np.uint8)
        messages.broadcast(leaders, data, check)
    messages.broadcast(node, path, check)
    name = os.fsdecode(path.tobytes().rstrip(b"\0"))
    data = np.memmap(name, np.uint8, "c")
    messages.barrier(node, check)
    if node.rank == 0:
        os.unlink(name)
    found = {key: np.asarray(data[start: start + size]).view(dtype).reshape(shape) if np.prod(shape) else
             np.empty(shape, dtype) for start, size, (key, dtype, shape, _) in zip(starts, sizes, table)}
    if node.rank == node.size - 1 and arrays is None:
        for key, _, _, expected in table:
            if (got := sum_of(found[key])) != expected:
                raise WireError(f"the data {key} from rank 0 are damaged: checksum {got:016x}, sent with "
                                f"{expected:016x}")
    return found


def sum_of(array):
    return checksum(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
