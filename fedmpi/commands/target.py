"""Files written by a command."""

import os

from fedmpi.core.errors import UserError


def check_new(path, overwrite):
    """UserError, before any work, if ``path`` cannot be written, or exists and may not be
    replaced."""
    from fedmpi.store import check_folder
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"{path}: there is no folder {folder}")
    check_folder(path)
    if os.path.exists(path) and not overwrite:
        raise UserError(f"{path} exists: give --overwrite, or another name")


def check_no_run(path, runs):
    """UserError if the output ``path`` is one of ``runs``, or named like a run file: ``-o a.h5
    b.h5``, with the output's name forgotten, must not cost a run."""
    # A name alone is enough: a forgotten output must not cost a run.
    is_named = path.endswith((".h5", ".hdf5"))
    file = os.path.realpath(path)
    run_files = [os.path.realpath(run) for run in runs]
    if is_named or file in run_files:
        raise UserError(
            f"{path} is a run file, or named like one: give another name for what comes out")
