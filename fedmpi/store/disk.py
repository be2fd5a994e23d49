"""Files that are there whole, or not at all."""

import contextlib
import os
import shutil
from functools import cache

import h5py

from fedmpi.core.errors import DiskError

SLACK = 100_000          # bytes that new attributes and HDF5's own tables may take


@contextlib.contextmanager
def writing(path):
    """An empty HDF5 file in memory; when the block ends well, it takes the place of ``path``. In memory, as HDF5 does
    not bear a full disk: it fails again and again, and cannot be closed."""
    in_memory = {"driver": "core", "backing_store": False, "block_size": 1 << 20}
    with refused_by(path), h5py.File(path, "w", locking=False, **in_memory) as f:
        yield f
        f.flush()
        content = f.id.get_file_image()
    replace(path, content)


@contextlib.contextmanager
def rewriting(path, room=0):
    """The HDF5 file ``path``, to be changed; when the block ends well, what it made of it takes its place. Not in
    memory, as a run file grows with the run: a copy on the disk, where ``room`` bytes, and SLACK for attributes, are
    taken first, so that HDF5 never meets a full disk."""
    with refused_by(path), _temporary(path) as temporary:
        shutil.copyfile(path, temporary)
        with open(temporary, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(temporary) + room + SLACK)
        with h5py.File(temporary, "r+", locking=False, rdcc_nbytes=0) as f:       # gives back what it has not used
            yield f


@contextlib.contextmanager
def beginning(path, room):
    """An empty HDF5 file beside ``path``, with ``room`` bytes and SLACK taken on the disk: ``finish(path)`` puts it
    there. What is large goes straight to the disk, where ``writing`` would hold it in memory twice."""
    with refused_by(path), _or_gone(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(_empty())
            file.flush()
            os.posix_fallocate(file.fileno(), 0, room + SLACK)
        with h5py.File(temporary, "r+", locking=False, rdcc_nbytes=0) as f:
            yield f


def finish(path):
    """What has been written beside ``path`` takes its place: onto the disk, then renamed."""
    with refused_by(path), _or_gone(path) as temporary:
        sync(temporary)
        os.replace(temporary, path)
        sync(os.path.dirname(path))


@cache
def _empty():
    """The bytes of an HDF5 file that holds nothing."""
    with h5py.File("empty", "w", driver="core", backing_store=False, block_size=1 << 12, locking=False) as f:
        f.flush()
        return f.id.get_file_image()


@contextlib.contextmanager
def _or_gone(path):
    """The name of a file beside ``path``, which is gone where the block does not end well."""
    try:
        yield path + ".tmp"
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path + ".tmp")
        raise


@contextlib.contextmanager
def _temporary(path):
    """The name of a file that takes the place of ``path`` when the block ends well, and is gone where it does not."""
    with _or_gone(path) as temporary:
        yield temporary
        finish(path)


def replace(path, content):
    """``content``, bytes, becomes the file ``path``: under another name, onto the disk, then renamed."""
    with refused_by(path), _temporary(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def refused_by(path):
    """DiskError in one line where the disk does not take what the block writes."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())    # HDF5 often has no number
        if not os.access(os.path.dirname(path), os.W_OK):
            reason = "the folder is not writable"
        raise DiskError(f"cannot write {path}: {reason}") from error


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
