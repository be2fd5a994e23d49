"""``fedmpi verify``."""

import os

import click

from fedmpi.commands.reading import run_argument, run_paths
from fedmpi.commands.say import write_out
from fedmpi.core.errors import UserError

AGREE = "agree in every recorded number that is not a time"


@click.command()
@run_argument("a", "A.h5|FOLDER")
@run_argument("b", "B.h5|FOLDER")
def verify(a, b):
    """Whether runs A and B agree in every bit that does not depend on the machine; exit code 1
    where they differ. Of two folders, runs that lie at the same place in either are compared."""
    from fedmpi.store import verify as compare
    if os.path.isdir(a) and os.path.isdir(b):
        return _verify_folders(a, b, compare)
    of_a, of_b = run_paths([a]), run_paths([b])
    if len(of_a) > 1 or len(of_b) > 1:
        raise UserError(f"{a} stands for {len(of_a)} run(s), {b} for {len(of_b)}: name two runs, or two folders")
    lines = compare(of_a[0], of_b[0])
    write_out("\n".join(lines) if lines else f"the runs {AGREE}")
    return 1 if lines else 0


def _verify_folders(a, b, compare):
    """Compare the runs of two folders, one by one; the exit code."""
    of_a, of_b = (_by_place(folder) for folder in (a, b))
    differ = 0
    for place in sorted(of_a.keys() | of_b.keys()):
        if place not in of_a or place not in of_b:
            lines = [f"only in {a if place in of_a else b}"]
        else:
            lines = compare(of_a[place], of_b[place])
        differ += bool(lines)
        for line in lines:
            write_out(f"{place}: {line}")
    both = len(of_a.keys() & of_b.keys())
    write_out(f"{differ} of the runs differ" if differ else f"all {both} runs {AGREE}")
    return 1 if differ else 0


def _by_place(folder):
    """``{place in the folder: file}`` of its runs."""
    return {os.path.relpath(path, folder): path for path in run_paths([folder])}
