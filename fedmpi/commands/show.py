"""``fedmpi show``."""

import json
import sys

import click

from fedmpi import settings
from fedmpi.commands import completion
from fedmpi.commands.say import write_out
from fedmpi.errors import UserError


@click.command()
@click.argument("run", type=click.Path(dir_okay=False), shell_complete=completion.files(".h5"))
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Write the picture as .png, .svg or .pdf instead.")
@click.option("--profile", is_flag=True, help="Where the time of the rounds went instead; --json always has it.")
@click.option("--options", is_flag=True, help="All options of every part, as they were used, and "
              "the digest of a plug-in's source instead; --json always has them.")
def show(run, as_json, picture, profile, options):
    """Summary and curves of a run, also while it goes on; fedmpi watch follows it."""
    if profile and picture:
        raise UserError("--profile has no place beside --picture")
    if options and (profile or picture):
        raise UserError(f"--options has no place beside --{'profile' if profile else 'picture'}")
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
    elif options:
        write_out(_options_text(found))
    else:
        write_out(report.summary(found) + "\n\n" + report.picture(found, colour=sys.stdout.isatty()))


def _options_text(run):
    """A line for each part of the run that has options."""
    if "parts" not in run.attrs:
        raise UserError("the run file was written before all options of its parts were recorded: "
                        "fedmpi show tells those that were given")
    rows = settings.lines(run.attrs["parts"])
    width = max((len(kind) for kind, _ in rows), default=0)
    return "\n".join(f"{kind:<{width}}  {text}" for kind, text in rows)
