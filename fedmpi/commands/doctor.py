"""``fedmpi doctor``."""

import json

import click

from fedmpi.commands.say import say
from fedmpi.core.wide import terminal_width


@click.command(short_help="Check this machine, or all ranks of a job.")
@click.option("--out", default="runs", show_default=True, type=click.Path(file_okay=False),
              help="Where run files will lie.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def doctor(out, as_json):
    """Check this machine, or under mpirun all ranks of a job: MPI, cores, GPUs, torch, speed
    between ranks, files, room.

    \b
    mpirun -n 33 fedmpi doctor --out runs

    Exit code 0: nothing worse than a note; 1: warnings, it will run, though not as it could; 2:
    errors, it will not."""
    from fedmpi.cluster import doctor as judge
    from fedmpi.cluster.examine import examine

    # Called on rank 0 alone, with the facts of all ranks.
    def show(facts, findings):
        if as_json:
            click.echo(json.dumps(judge.as_json(facts, findings)))
        else:
            click.echo(judge.text(findings, terminal_width()))

    return examine(out, show, say)
