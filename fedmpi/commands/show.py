"""``fedmpi show``."""

import json
import sys

import click

from fedmpi.commands import completion
from fedmpi.commands.say import write_out
from fedmpi.errors import UserError


@click.command()
@click.argument("run", type=click.Path(dir_okay=False), shell_complete=completion.files(".h5"))
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Write the picture as .png, .svg or .pdf instead.")
@click.option("--profile", is_flag=True, help="Where the time of the rounds went instead; --json always has it.")
def show(run, as_json, picture, profile):
    """Summary and curves of a run, also while it goes on; fedmpi watch follows it."""
    if profile and picture:
        raise UserError("--profile has no place beside --picture")
    from fedmpi import report
    from fedmpi.store import read_run
    found = read_run(run)
    if picture:
        report.save_picture(found, picture)
        write_out(picture)
    elif as_json:
        write_out(json.dumps(report.to_json(found)))
    elif profile:
        write_out(report.profile_text(found))
    else:
        write_out(report.summary(found) + "\n\n" + report.picture(found, colour=sys.stdout.isatty()))
