"""Run files that a command reads: named one by one, or by the folder that holds them."""

import os

import click

from fedmpi.commands import completion
from fedmpi.errors import UserError


def runs_argument(command):
    """The argument ``runs``, at least one file or folder, on ``command``; ``run_paths`` makes files of it."""
    return click.argument("runs", nargs=-1, required=True, metavar="RUN.h5|FOLDER...",
                          shell_complete=completion.files(".h5"))(command)


def run_paths(places):
    """The files that are named, and those ending on .h5 of the folders that are, each once; UserError for a folder
    without any."""
    found = []
    for place in places:
        if os.path.isdir(place):
            held = [os.path.join(place, name) for name in sorted(os.listdir(place)) if name.endswith(".h5")]
            if not held:
                raise UserError(f"{place} is a folder without a file ending on .h5")
            found += held
        else:
            found.append(place)
    first = {}
    for path in found:
        first.setdefault(os.path.realpath(path), path)
    return list(first.values())


def read_all(places):
    """``{path: Run}`` of each file once."""
    from fedmpi.store import read_run
    return {path: read_run(path) for path in run_paths(places)}
