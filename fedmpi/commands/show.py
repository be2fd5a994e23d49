"""``fedmpi show``."""

import json
import sys
import time

import click

from fedmpi.commands import completion
from fedmpi.errors import UserError


@click.command()
@click.argument("run", type=click.Path(dir_okay=False), shell_complete=completion.files(".h5"))
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--follow", is_flag=True, help="Stay and show new rounds until the run ends.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Write the picture as .png, .svg or .pdf instead.")
@click.option("--profile", is_flag=True, help="Where the time of the rounds went instead; --json always has it.")
def show(run, as_json, follow, picture, profile):
    """Summary and curves of a run, also while it goes on."""
    if profile and (follow or picture):
        raise UserError("--profile has no place beside --follow or --picture")
    from fedmpi import report
    from fedmpi.store import read_run
    found = read_run(run)
    if picture:
        report.save_picture(found, picture)
        click.echo(picture)
    elif as_json:
        click.echo(json.dumps(report.to_json(found)))
    elif follow:
        _follow(run)
    elif profile:
        click.echo(report.profile_text(found))
    else:
        click.echo(report.summary(found) + "\n\n" + report.picture(found, colour=sys.stdout.isatty()))


def _follow(path):
    """Print each round as it is committed, and the summary when the run ends."""
    from fedmpi import report
    from fedmpi.store import read_run
    shown, heard, warned = 0, time.monotonic(), False
    while True:
        run = read_run(path)
        T, planned = len(run.rounds["round"]), run.attrs["options"]["rounds"]
        for t in range(shown, T):
            row = {name: column[t] for name, column in run.rounds.items()}
            click.echo(report.round_line(row, planned,
                                         (planned - t - 1) * float(run.rounds["round_s"][: t + 1].mean())))
        if T > shown:
            shown, heard, warned = T, time.monotonic(), False
        elif time.monotonic() - heard > 60 and not warned:
            warned = True
            click.echo("no new round for a minute; if the run was killed, fedmpi train --resume goes on")
        if run.attrs["status"] != "running":
            click.echo(report.summary(run) + "\n\n" + report.picture(run, colour=sys.stdout.isatty()))
            return
        time.sleep(1)
