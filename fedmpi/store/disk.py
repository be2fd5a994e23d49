"""Files written whole, or not at all."""

import contextlib
import os
import shutil
from functools import cache

import h5py

from fedmpi.core.errors import DiskError

# Bytes for new attributes and for HDF5's own tables.
SLACK = 100_000


@contextlib.contextmanager
def writing(path):
    """An empty HDF5 file in memory; it becomes the file ``path`` when the block ends well."""
    # In memory, since HDF5 cannot cope with a full disk: it fails again and again, and cannot be closed.
    in_memory = {"driver": "core", "backing_store": False, "block_size": 1 << 20}
    with refused_by(path), h5py.File(path, "w", locking=False, **in_memory) as f:
        yield f
        f.flush()
        content = f.id.get_file_image()
    replace(path, content)


@contextlib.contextmanager
def rewriting(path, room=0):
    """A copy of the HDF5 file ``path``, to be changed; it replaces the file when the block ends well.

    The copy may grow by ``room`` bytes, and by SLACK for attributes."""
    # Run files grow with the run, so the copy is on the disk, not in memory. Its bytes are allocated first, so that
    # HDF5 never meets a full disk; on closing, HDF5 gives back the unused ones.
    with refused_by(path), _temporary(path) as temporary:
        shutil.copyfile(path, temporary)
        with open(temporary, "rb+") as file:
            num_bytes = os.path.getsize(temporary) + room + SLACK
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        with h5py.File(temporary, "r+", locking=False, rdcc_nbytes=0) as f:
            yield f


@contextlib.contextmanager
def beginning(path, room):
    """An empty HDF5 file beside ``path``, with ``room`` bytes and SLACK allocated; ``finish(path)`` puts it in place.
    For large content: ``writing`` would hold it in memory twice."""
    with refused_by(path), _or_gone(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(_empty())
            file.flush()
            os.posix_fallocate(file.fileno(), 0, room + SLACK)
        with h5py.File(temporary, "r+", locking=False, rdcc_nbytes=0) as f:
            yield f


@contextlib.contextmanager
def continuing(path):
    """The name of the file beside ``path`` that ``beginning`` began, for more content."""
    with refused_by(path), _or_gone(path) as temporary:
        yield temporary


def finish(path):
    """The file written beside ``path`` replaces it: onto the disk, then renamed."""
    with refused_by(path), _or_gone(path) as temporary:
        sync(temporary)
        os.replace(temporary, path)
        # The folder too: the new name must survive a power cut.
        sync(os.path.dirname(path))


@cache
def _empty():
    """The bytes of an empty HDF5 file."""
    with h5py.File("empty", "w", driver="core", backing_store=False, block_size=1 << 12, locking=False) as f:
        f.flush()
        return f.id.get_file_image()


@contextlib.contextmanager
def _or_gone(path):
    """The name of a temporary file beside ``path``; the file is removed if the block fails."""
    temporary = path + ".tmp"
    try:
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _temporary(path):
    """The name of a temporary file: it replaces ``path`` when the block ends well, and is removed otherwise."""
    with _or_gone(path) as temporary:
        yield temporary
        finish(path)


def replace(path, content):
    """``content``, bytes, becomes the file ``path``: under another name, onto the disk, then renamed."""
    with refused_by(path), _temporary(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def refused_by(path):
    """DiskError in one line if the disk refuses the block's writes."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"cannot write {path}: {_reason(path, error)}") from error


def _reason(path, error):
    if not os.access(os.path.dirname(path), os.W_OK):
        return "the folder is not writable"
    if error.errno:
        return os.strerror(error.errno)
    # HDF5 often has no number.
    return " ".join(str(error).split())


def sync(path):
    """Puts a file or a folder onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(folder, names):
    for name in names:
        os.unlink(os.path.join(folder, name))
