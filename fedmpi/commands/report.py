"""``fedmpi report``: a page about runs."""

import os

import click

from fedmpi.commands.reading import read_all, runs_argument
from fedmpi.commands.target import check_no_run


@click.command(short_help="One HTML page about runs.")
@runs_argument
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False), metavar="FILE.html",
    help="The page.  [default: RUN.html or FOLDER.html beside the first that is named]")
@click.option("--title", help="The page's title.  [default: the set-ups and their data]")
@click.option(
    "--note", "remarks", multiple=True, metavar="TEXT",
    help="A paragraph below the title. May be given several times.")
def report(runs, out, title, remarks):
    """One HTML page about runs, also about one that goes on: what was run, curves, pruning, clients
    and their contributions, time, faults. Everything is in the file: it needs no server, no network
    and no scripts, and it prints. Runs that differ in the seed only are one line."""
    if not out:
        out = _usual_name(runs[0])
    # Before the runs are read, which may take long.
    check_no_run(out, runs)
    from fedmpi.read.report.page import page
    by_path = read_all(runs)
    written = page(by_path, title, remarks)
    # Names of files may hold bytes without a character.
    with open(out, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(written)
    click.echo(out)


def _usual_name(place):
    """``runs.html`` beside the folder ``runs``, ``a.html`` beside ``a.h5``."""
    stem = place.rstrip("/")
    if not os.path.isdir(stem):
        stem, _ = os.path.splitext(stem)
    return f"{stem}.html"
