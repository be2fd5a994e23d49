"""``fedmpi show``."""

import json
import sys

import click

from fedmpi.build import settings
from fedmpi.commands.reading import one_run, run_argument
from fedmpi.commands.say import write_out
from fedmpi.core.errors import UserError
from fedmpi.core.wide import labelled, terminal_width

# The most columns of a picture: wider curves are no clearer.
WIDEST = 100


@click.command(short_help="Summary and curves of a run.")
@run_argument("run")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option(
    "--picture", type=click.Path(dir_okay=False),
    help="Write the picture as .png, .svg or .pdf instead.")
@click.option(
    "--profile", is_flag=True,
    help="Where the time of the rounds went instead; --json always has it.")
@click.option(
    "--options", is_flag=True,
    help="All options of every part, as they were used, and the digest of a plug-in's source "
         "instead; --json always has them.")
def show(run, as_json, picture, profile, options):
    """Summary and curves of a run, also while it goes on; fedmpi watch follows it."""
    _check_alone(profile, options, picture)
    from fedmpi.read import report
    from fedmpi.store import read_run
    path = one_run(run)
    run = read_run(path)
    if picture:
        report.save_picture(run, picture)
        write_out(picture)
    elif as_json:
        write_out(json.dumps(report.to_json(run)))
    elif profile:
        write_out(report.profile_text(run, terminal_width()))
    elif options:
        write_out(_options_text(run))
    else:
        write_out(in_words_and_curves(run, sys.stdout.isatty()))


def _check_alone(profile, options, picture):
    """UserError for two of the options with an output of their own."""
    if profile and picture:
        raise UserError("--profile has no place beside --picture")
    if options and profile:
        raise UserError("--options has no place beside --profile")
    if options and picture:
        raise UserError("--options has no place beside --picture")


def in_words_and_curves(run, colour):
    """The summary of a run and its picture, as wide as the terminal."""
    from fedmpi.read import report
    width = terminal_width()
    picture_width = min(width, WIDEST)
    summary = report.summary(run, width)
    drawn = report.picture(run, picture_width, colour=colour)
    return f"{summary}\n\n{drawn}"


def _options_text(run):
    """Each part of the run with options, and all of them."""
    if "parts" not in run.attrs:
        raise UserError(
            "the run file was written before all options of its parts were recorded: fedmpi show "
            "tells those that were given")
    pairs = settings.lines(run.attrs["parts"])
    lines = labelled(pairs, terminal_width())
    return "\n".join(lines)
