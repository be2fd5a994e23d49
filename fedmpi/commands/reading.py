"""Run files read by a command: named one by one, or by their folder.

For every command, a folder stands for the runs in it and in the folders below it.
"""

import os

import click

from fedmpi.commands import completion
from fedmpi.commands.say import say
from fedmpi.core.errors import UserError

# Endings of run files' names.
NAMED = (".h5", ".hdf5")
# Passed-over files named one by one.
TOLD = 3


def runs_argument(command):
    """The argument ``runs``, at least one file or folder, on ``command``; see ``run_paths``."""
    decorate = click.argument(
        "runs",
        nargs=-1,
        required=True,
        metavar="RUN.h5|FOLDER...",
        shell_complete=completion.files(*NAMED))
    return decorate(command)


def run_argument(name, metavar="RUN.h5"):
    """The argument ``name``, one run file or a folder with a single one; see ``one_run``."""
    return click.argument(name, metavar=metavar, shell_complete=completion.files(*NAMED))


def run_paths(places):
    """The named files, and the runs of the named folders, each once. UserError for a folder without
    runs; says which files of a folder are passed over."""
    paths = []
    for place in places:
        if os.path.isdir(place):
            paths += runs_in(place)
        else:
            paths.append(place)
    # A file may have several paths: the first one stays.
    by_file = {}
    for path in paths:
        by_file.setdefault(os.path.realpath(path), path)
    return list(by_file.values())


def one_run(place):
    """The named file, or the only run of the named folder. UserError for several."""
    paths = run_paths([place])
    first, *others = paths
    if others:
        raise UserError(f"{place} holds {len(paths)} runs, and this takes one: name {first}, say")
    return first


def runs_in(folder):
    """The run files in ``folder`` and in the folders below it, in the order of their names.
    UserError for none. Says which files only look like runs, and leaves them out."""
    from fedmpi.store import why_no_run
    runs, others = [], []
    for path in _files_below(folder):
        why = why_no_run(path)
        if why:
            others.append(why)
        else:
            runs.append(path)
    if not runs:
        _refuse_folder(folder, others)
    for why in others[:TOLD]:
        say(f"passed over: {why}")
    num_more = len(others) - TOLD
    if num_more > 0:
        say(f"passed over: {num_more} more files in {folder} that are no runs")
    return runs


def _refuse_folder(folder, reasons):
    """UserError on a folder without runs, with the first ``reasons`` of files to be none."""
    refusal = f"{folder} is a folder without a run"
    if reasons:
        listed = "; ".join(reasons[:TOLD])
        refusal += f" ({listed})"
    raise UserError(refusal)


def _files_below(folder):
    """The files named like HDF5 files, in a folder before the folders below it. Without
    checkpoints, hidden folders and links to folders: these may lead back up."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        # os.path's own isfile: False, and no error, for a link to itself.
        if entry.name.lower().endswith(NAMED) and os.path.isfile(entry.path):
            yield entry.path
    for entry in entries:
        is_left_out = entry.name.startswith(".") or entry.name.endswith(".ckpt")
        if is_left_out:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path)


def read_all(places):
    """``{path: Run}`` of each file once."""
    from fedmpi.store import read_run
    return {path: read_run(path) for path in run_paths(places)}
