"""``fedmpi compare``: runs side by side."""

import json
import sys

import click

from fedmpi.commands.reading import read_all, runs_argument
from fedmpi.commands.say import say, write_out
from fedmpi.core.errors import UserError
from fedmpi.core.wide import terminal_width

PANELS = ["accuracy", "accuracy-bytes", "accuracy-flops"]
# The most columns of a picture in the terminal.
WIDEST = 140


@click.command(short_help="What differs between runs, in options and outcomes.")
@runs_argument
@click.option(
    "--accuracy", type=click.FloatRange(0, min_open=True),
    help="What it takes to reach this test accuracy, or headline of another task.  [default: the "
         "highest percent, or the best, that all runs reach]")
@click.option("--other-data", is_flag=True, help="Also compare runs on different data sets.")
@click.option(
    "--baseline", metavar="NAME|RUN.h5",
    help="Hold all others against this set-up: its name or letter here, or a run of it.  "
         "[default: the first]")
@click.option("--pairs", is_flag=True, help="Hold every two set-ups against one another.")
@click.option(
    "--picture", type=click.Path(dir_okay=False),
    help="Also write the curves as .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def compare(runs, accuracy, other_data, baseline, pairs, picture, as_json):
    """What differs between runs: first their options, then test accuracy at equal rounds, bytes and
    FLOPs, and what it takes to reach an accuracy; for other tasks their headline. Runs that differ
    in the seed only are one set-up; two with the same seeds are compared seed by seed, with a 95 %
    interval of the mean difference."""
    from fedmpi.read import report
    if picture:
        report.picture_kind(picture)
    if baseline and pairs:
        raise UserError(
            "of --baseline and --pairs one at a time: every pair has the baseline's in it")
    by_path = read_all(runs)
    if len(by_path) < 2:
        raise UserError("there is one run: name another one to compare it with")
    if not other_data:
        report.refuse_other_data(by_path)
    groups = report.grouped(by_path)
    # The first group, unless the user names another.
    against = 0
    if baseline:
        against = report.find_group(groups, baseline, "--baseline")
    comparison = report.comparison(groups, accuracy, against, pairs)
    if picture:
        report.save_plot(groups, PANELS, picture, width_cm=24, columns=len(PANELS))
    if as_json:
        plain = report.plain(report.without_tuples(comparison))
        write_out(json.dumps(plain))
        return
    asks_for_intervals = baseline or pairs
    if asks_for_intervals and not comparison["paired"]:
        say("no two set-ups share two seeds that were evaluated, so no difference has an interval")
    _show(groups, comparison, picture)


def _show(groups, comparison, picture):
    """Write the comparison and its curves to the terminal."""
    from fedmpi.read import report
    width = terminal_width()
    text = report.comparison_text(comparison, width)
    # Wider curves are no clearer.
    picture_width = min(width, WIDEST)
    drawn = report.curves_picture(groups, picture_width, colour=sys.stdout.isatty())
    write_out(f"{text}\n\n{drawn}")
    if picture:
        write_out(f"\npicture: {picture}")
