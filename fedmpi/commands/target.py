"""Files that a command writes."""

import os

from fedmpi.core.errors import UserError


def check_new(path, overwrite):
    """UserError, before any work, where ``path`` lies in no folder that takes it, or exists and may not be replaced."""
    from fedmpi.store import check_folder
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"{path}: there is no folder {folder}")
    check_folder(path)
    if os.path.exists(path) and not overwrite:
        raise UserError(f"{path} exists: give --overwrite, or another name")


def check_no_run(path, runs):
    """UserError where ``path``, which would be replaced, is one of ``runs`` or named as run files are: what is typed as
    ``-o a.h5 b.h5``, the name forgotten, must not cost a run."""
    if path.endswith((".h5", ".hdf5")) or os.path.realpath(path) in map(os.path.realpath, runs):
        raise UserError(f"{path} is a run file, or named like one: give another name for what comes out")
