"""``fedmpi show``."""

import json
import sys

import click

from fedmpi.commands.reading import one_run, run_argument
from fedmpi.errors import UserError
from fedmpi.wide import terminal_width

WIDEST = 100                  # columns of a picture


@click.command()
@run_argument("run")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Write the picture as .png, .svg or .pdf instead.")
@click.option("--profile", is_flag=True, help="Where the time of the rounds went instead; --json always has it.")
def show(run, as_json, picture, profile):
    """Summary and curves of a run, also while it goes on; fedmpi watch follows it."""
    if profile and picture:
        raise UserError("--profile has no place beside --picture")
    from fedmpi import report
    from fedmpi.store import read_run
    found = read_run(one_run(run))
    if picture:
        report.save_picture(found, picture)
        click.echo(picture)
    elif as_json:
        click.echo(json.dumps(report.to_json(found)))
    elif profile:
        click.echo(report.profile_text(found, terminal_width()))
    else:
        click.echo(in_words_and_curves(found, sys.stdout.isatty()))


def in_words_and_curves(run, colour):
    """The summary of a run and its picture, as wide as the terminal."""
    from fedmpi import report
    width = terminal_width()
    drawn = report.picture(run, min(width, WIDEST), colour=colour)
    return report.summary(run, width) + "\n\n" + drawn
