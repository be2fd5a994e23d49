"""``fedmpi merge``."""

import json
import os

import click

from fedmpi.commands.reading import run_paths, runs_argument
from fedmpi.commands.say import say, write_out
from fedmpi.commands.target import check_no_run
from fedmpi.core.errors import FedError, UserError
from fedmpi.core.wide import terminal_width


@click.command(short_help="The outcomes of many runs in one table.")
@runs_argument
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="TABLE.csv",
    help="The runs as CSV; means over seeds in TABLE-seeds.csv.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def merge(runs, out, as_json):
    """The outcomes of many runs in one table, and their mean and spread over seeds."""
    if out:
        check_no_run(out, runs)
    from fedmpi.read import report
    from fedmpi.store import read_run
    read = {}
    unread = []
    # One damaged file must not cost the table of a hundred.
    for path in run_paths(runs):
        try:
            read[path] = read_run(path)
        except FedError as error:
            unread.append(str(error))
            say(f"left out: {error}")
    if not read:
        listed = ", ".join(runs)
        raise UserError(f"no run file in {listed}")
    varying, rows = report.outcomes(read)
    groups = report.over_seeds(varying, rows)
    if out:
        _write_csv(out, rows)
        stem, suffix = os.path.splitext(out)
        _write_csv(f"{stem}-seeds{suffix}", groups)
    if as_json:
        outcomes = {"runs": rows, "over_seeds": groups, "left_out": unread}
        plain = report.plain(outcomes)
        write_out(json.dumps(plain))
    else:
        text = report.outcomes_text(varying, rows, terminal_width())
        write_out(text)
    # Exit code 1: the table is not of all.
    return int(bool(unread))


def _write_csv(path, rows):
    """Write a table with the first row's columns; a missing value is an empty cell."""
    import csv
    columns = []
    if rows:
        columns = list(rows[0])
    # Names of runs may hold bytes without a character.
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
