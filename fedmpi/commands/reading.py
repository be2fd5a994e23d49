"""Run files that a command reads: named one by one, or by the folder that holds them.

A folder stands for the runs in it and in the folders below it, whichever command it is given to.
"""

import os

import click

from fedmpi.commands import completion
from fedmpi.commands.say import say
from fedmpi.core.errors import UserError

NAMED = (".h5", ".hdf5")      # how files are named that may be runs
TOLD = 3                      # files that are passed over and told one by one


def runs_argument(command):
    """The argument ``runs``, at least one file or folder, on ``command``; ``run_paths`` makes files
    of it."""
    return click.argument("runs", nargs=-1, required=True, metavar="RUN.h5|FOLDER...",
                          shell_complete=completion.files(*NAMED))(command)


def run_argument(name, metavar="RUN.h5"):
    """The argument ``name``, one run file or a folder that holds one; ``one_run`` makes a file of
    it."""
    return click.argument(name, metavar=metavar, shell_complete=completion.files(*NAMED))


def run_paths(places):
    """The files that are named, and the runs of the folders that are, each once; UserError for a
    folder without any. What is passed over in a folder is told."""
    found = []
    for place in places:
        found += runs_in(place) if os.path.isdir(place) else [place]
    first = {}
    for path in found:
        first.setdefault(os.path.realpath(path), path)
    return list(first.values())


def one_run(place):
    """The file that is named, or the only run of the folder that is; UserError where it holds
    several."""
    paths = run_paths([place])
    if len(paths) > 1:
        raise UserError(f"{place} holds {len(paths)} runs, and this takes one: name {paths[0]}, say")
    return paths[0]


def runs_in(folder):
    """The run files in ``folder`` and in the folders below it, in the order of their names;
    UserError where there is none. Files that only look like runs are told of, and left out."""
    from fedmpi.store import why_no_run
    runs, others = [], []
    for path in _files_below(folder):
        why = why_no_run(path)
        if why:
            others.append(why)
        else:
            runs.append(path)
    if not runs:
        raise UserError(f"{folder} is a folder without a run" + f" ({'; '.join(others[:TOLD])})" * bool(others))
    for why in others[:TOLD]:
        say(f"passed over: {why}")
    if len(others) > TOLD:
        say(f"passed over: {len(others) - TOLD} more files in {folder} that are no runs")
    return runs


def _files_below(folder):
    """The files named as HDF5 files are, those of a folder before those of its folders.
    Checkpoints, hidden folders and links to folders, which may lead back up, are left out."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        # Unlike the entry's own, this is False, and no error, for a link that leads to itself.
        if entry.name.lower().endswith(NAMED) and os.path.isfile(entry.path):
            yield entry.path
    for entry in entries:
        left_out = entry.name.startswith(".") or entry.name.endswith(".ckpt")
        if entry.is_dir(follow_symlinks=False) and not left_out:
            yield from _files_below(entry.path)


def read_all(places):
    """``{path: Run}`` of each file once."""
    from fedmpi.store import read_run
    return {path: read_run(path) for path in run_paths(places)}
