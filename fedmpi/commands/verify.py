"""``fedmpi verify``."""

import os

import click

from fedmpi.commands.reading import run_argument, run_paths
from fedmpi.commands.say import write_out
from fedmpi.core.errors import UserError
from fedmpi.core.words import plural

AGREE = "agree in every recorded number that is not a time"


@click.command(short_help="Whether two runs agree in every bit.")
@run_argument("a", "A.h5|FOLDER")
@run_argument("b", "B.h5|FOLDER")
def verify(a, b):
    """Whether runs A and B agree in every bit that does not depend on the machine; exit code 1
    where they differ. Of two folders, runs that lie at the same place in either are compared."""
    from fedmpi.store import verify as compare
    if os.path.isdir(a) and os.path.isdir(b):
        return _verify_folders(a, b, compare)
    of_a = run_paths([a])
    of_b = run_paths([b])
    # A folder with one run stands for it.
    if len(of_a) > 1 or len(of_b) > 1:
        raise UserError(
            f"{a} stands for {plural(len(of_a), 'run')}, {b} for {len(of_b)}: name two runs, "
            "or two folders")
    lines = compare(of_a[0], of_b[0])
    if lines:
        write_out("\n".join(lines))
        return 1
    write_out(f"the runs {AGREE}")
    return 0


def _verify_folders(a, b, compare):
    """Compare the runs of two folders, one by one; the exit code."""
    of_a = _by_place(a)
    of_b = _by_place(b)
    num_different = 0
    # A run that is missing on one side is a difference, too.
    for place in sorted(of_a.keys() | of_b.keys()):
        if place not in of_b:
            lines = [f"only in {a}"]
        elif place not in of_a:
            lines = [f"only in {b}"]
        else:
            lines = compare(of_a[place], of_b[place])
        # No lines: the same bits.
        num_different += bool(lines)
        for line in lines:
            write_out(f"{place}: {line}")
    if num_different:
        write_out(f"{num_different} of the runs differ")
        return 1
    write_out(f"all {len(of_a)} runs {AGREE}")
    return 0


def _by_place(folder):
    """``{place in the folder: file}`` of its runs."""
    paths = run_paths([folder])
    return {os.path.relpath(path, folder): path for path in paths}
