"""Large read-only arrays, in the memory of every node once, shared by its ranks."""

import os
import socket
import tempfile

import numpy as np

from fedmpi.core.errors import DiskError, WireError
from fedmpi.transport import messages
from fedmpi.wire.frame import checksum

# Arrays begin at pages; a file's name fits into one, too.
PAGE = 4096


def share(nodes, table, arrays=None, check=lambda: None):
    """``{name: array}`` of ``table``, [[name, dtype, shape, checksum], ...]; WireError if an array arrives damaged.

    One file a node, mapped by its ranks and already unlinked: nothing is left behind, however the job ends. Rank 0
    brings the ``arrays``, one leader a node receives them, and the node's last rank checks the sums."""
    node, leaders = nodes
    places, num_bytes = _places(table)
    path = np.zeros(PAGE, np.uint8)
    if node.rank == 0:
        name = _new_file(num_bytes)
        encoded = np.frombuffer(os.fsencode(name), np.uint8)
        path[: len(encoded)] = encoded
        content = np.memmap(name, np.uint8, "r+")
        if arrays is not None:
            _fill(content, arrays, places)
        messages.broadcast(leaders, content, check)
    messages.broadcast(node, path, check)
    name = os.fsdecode(path.tobytes().rstrip(b"\0"))
    # Copy on write: no rank changes another's data.
    content = np.memmap(name, np.uint8, "c")
    messages.barrier(node, check)
    if node.rank == 0:
        os.unlink(name)
    shared = {}
    for name, dtype, shape, _ in table:
        shared[name] = _view(content[places[name]], dtype, shape)
    if node.rank == node.size - 1 and arrays is None:
        _check_sums(table, shared)
    return shared


def _places(table):
    """``({name: slice of bytes}, bytes in all)`` of the file; an empty array has a place, too."""
    places = {}
    start = 0
    for name, dtype, shape, _ in table:
        num_items = max(1, int(np.prod(shape, dtype=np.int64)))
        stop = start + num_items * np.dtype(dtype).itemsize
        places[name] = slice(start, stop)
        # Up to the next page.
        start = -(-stop // PAGE) * PAGE
    return places, start


def _new_file(num_bytes):
    """The name of a new file with its bytes allocated. DiskError if the disk has no room for them."""
    handle, name = tempfile.mkstemp(prefix="fedmpi-")
    try:
        os.posix_fallocate(handle, 0, num_bytes)
    except OSError as error:
        os.unlink(name)
        raise DiskError(f"no room for {num_bytes:,} bytes of data, shared by the ranks of "
                        f"{socket.gethostname()}, in {tempfile.gettempdir()} ({error.strerror}): set TMPDIR to "
                        "another folder") from error
    os.close(handle)
    return name


def _fill(content, arrays, places):
    for name, place in places.items():
        array = arrays[name]
        if array.size:
            content[place] = _bytes_of(array)


def _view(content, dtype, shape):
    if np.prod(shape) == 0:
        return np.empty(shape, dtype)
    return np.asarray(content).view(dtype).reshape(shape)


def _check_sums(table, arrays):
    for name, _, _, expected in table:
        got = sum_of(arrays[name])
        if got != expected:
            raise WireError(f"the data {name} from rank 0 are damaged: checksum {got:016x}, sent with "
                            f"{expected:016x}")


def sum_of(array):
    return checksum(_bytes_of(array))


def _bytes_of(array):
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
