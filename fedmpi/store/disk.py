"""Files that are there whole, or not at all."""

import contextlib
import os

from fedmpi.errors import UserError


@contextlib.contextmanager
def replacing(path):
    """A temporary name beside ``path``; what was written there takes its place when the block ends well."""
    temporary = path + ".tmp"
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except PermissionError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync(os.path.dirname(path))


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
