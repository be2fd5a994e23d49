"""Large arrays, in the memory of every node once, shared by its ranks."""

import contextlib
import fcntl
import os
import socket
import tempfile

import numpy as np

from fedmpi.core.errors import DiskError, WireError
from fedmpi.transport import messages
from fedmpi.transport.base import Room
from fedmpi.wire.frame import checksum

# Arrays begin at pages; a file's name fits into one, too.
PAGE = 4096
# The folder of Linux whose files are memory.
MEMORY = "/dev/shm"


def share(nodes, table, arrays=None, check=lambda: None):
    """``{name: array}`` of ``table``, [[name, dtype, shape, checksum], ...]; WireError if an array arrives damaged.

    One file a node, mapped by its ranks and already unlinked: nothing is left behind, however the job ends. Rank 0
    brings the ``arrays``, one leader a node receives them, and the node's last rank checks the sums."""
    node, leaders = nodes
    places, num_bytes = _places(table)

    def fill(content):
        if arrays is not None:
            _fill(content, arrays, places)
        messages.broadcast(leaders, content, check)

    # Data may be larger than memory: the disk's cache holds what is read of them.
    with _file(node, num_bytes, [tempfile.gettempdir()], fill, check) as file:
        # Copy on write: no rank changes another's data.
        content = np.memmap(file, np.uint8, "c")
    shared = {}
    for name, dtype, shape, _ in table:
        shared[name] = _view(content[places[name]], dtype, shape)
    if node.rank == node.size - 1 and arrays is None:
        _check_sums(table, shared)
    return shared


def published(nodes, num_bytes, fill=lambda content: None, check=lambda: None):
    """uint8: a message of ``num_bytes`` to every rank, in each node's memory once; copy on write.

    Rank 0 writes it with ``fill(content)``. It stays as it is: the next message has other memory.
    """
    node, leaders = nodes

    def receive(content):
        fill(content)
        messages.broadcast(leaders, content, check)

    with _file(node, num_bytes, _memory_first(), receive, check) as file:
        return np.asarray(np.memmap(file, np.uint8, "c"))


def room(comm, num_bytes):
    """The ``Room`` of ``comm``'s ranks, which are of one node and call this together."""
    with _file(comm, num_bytes, _memory_first()) as file:
        content = np.asarray(np.memmap(file, np.uint8, "r+"))
        handle = os.dup(file.fileno())
    # Closing any handle of a file opens all locks of the process on it: only now.
    lock = _Lock(handle)
    return Room(content, lock.of, comm.rank == 0)


class _Lock:
    """Locks of an open file, a byte of it each; they go with the process."""

    def __init__(self, handle):
        self.handle = handle

    @contextlib.contextmanager
    def of(self, number):
        fcntl.lockf(self.handle, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self.handle, fcntl.LOCK_UN, 1, number)

    def __del__(self):
        os.close(self.handle)


@contextlib.contextmanager
def _file(node, num_bytes, folders, fill=lambda content: None, check=lambda: None):
    """A new open file of ``num_bytes``, for all ranks of ``node`` to map inside the block.

    The first rank writes it with ``fill(content)``. By then the file has no name any more: nothing
    is left of it, however the job ends.
    """
    path = np.zeros(PAGE, np.uint8)
    if node.rank == 0:
        name = _new_file(num_bytes, folders)
        encoded = np.frombuffer(os.fsencode(name), np.uint8)
        path[: len(encoded)] = encoded
    messages.broadcast(node, path, check)
    name = os.fsdecode(path.tobytes().rstrip(b"\0"))
    with open(name, "r+b") as file:
        messages.barrier(node, check)
        if node.rank == 0:
            os.unlink(name)
            fill(np.memmap(file, np.uint8, "r+"))
        messages.barrier(node, check)
        yield file


def _memory_first():
    """Folders for what changes each round: memory, then the disk, where it is written for nothing."""
    return [folder for folder in (MEMORY, tempfile.gettempdir()) if os.access(folder, os.W_OK)]


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


def _new_file(num_bytes, folders):
    """The name of a new file with its bytes allocated, in the first of ``folders`` with room for them.

    DiskError if none has.
    """
    for folder in folders:
        handle, name = tempfile.mkstemp(prefix="fedmpi-", dir=folder)
        try:
            os.posix_fallocate(handle, 0, num_bytes)
            return name
        except OSError as error:
            os.unlink(name)
            reason = error.strerror
        finally:
            os.close(handle)
    raise DiskError(f"no room for {num_bytes:,} bytes of data, shared by the ranks of {socket.gethostname()}, in "
                    f"{' and '.join(folders)} ({reason}): set TMPDIR to another folder")


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
