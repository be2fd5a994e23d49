"""``fedmpi sbatch``."""

import sys

import click

from fedmpi.commands.run_options import Options, run_file
from fedmpi.commands.runs import (
    all_options, arguments, check_parts, check_script, deliver, slurm_options)
from fedmpi.commands.say import say
from fedmpi.commands.train import train

# Options of train about a run that is there, or is not to be: a job has none.
OTHERS = ("resume", "dry_run", "overwrite")
TRAIN_OPTIONS = [option for option in train.params if option.name not in OTHERS]


@click.command(
    cls=Options,
    params=TRAIN_OPTIONS,
    short_help="A batch script for Slurm that trains and goes on.")
@slurm_options
@click.option(
    "--measure", is_flag=True,
    help="Play a little of it here first, as train --dry-run does, for time and memory; imports "
         "torch.")
@click.option(
    "--script", type=click.Path(dir_okay=False),
    help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
def sbatch(measure, script, submit, **flags):
    """A batch script for Slurm that trains with these options, stops in time, queues itself again
    and goes on.

    The data's --partition is not the cluster's: that is --queue."""
    from fedmpi.build.ranks import wanted
    from fedmpi.cluster import sbatch as slurm
    from fedmpi.cluster.foretell import foretold
    from fedmpi.cluster.script import script as batch_script
    check_script(script, submit)
    of_job = {name: flags.pop(name) for name in slurm.Job._fields}
    job = slurm.Job(**of_job)
    if not flags["out"]:
        seed = flags["seed"] or 0
        flags["out"] = run_file(seed)
    # As the user has typed them: ``check_parts`` writes them in another form.
    written = arguments(flags)
    check_parts(flags)
    options = all_options(flags)
    if not job.ranks:
        # A worker a client of the cohort, or several, and the server.
        ranks = wanted(slurm.cohort(options), options["ranks_per_client"])
        job = job._replace(ranks=ranks)
    slurm.check(job, options)
    measured = None
    if measure:
        measured = _measured(options)
    slurm.check(job, options, measured)
    for line in foretold(job, options, measured):
        say(line)
    text = batch_script(job, options, written, sys.argv[1:], measured)
    deliver(text, script, submit)


def _measured(options):
    """Time and memory of a round, by a short run in this process."""
    from fedmpi.cluster import sbatch as slurm
    from fedmpi.run import plan
    _, measured = plan.played(options, say)
    return slurm.Measured(measured.round_s, measured.shared_s, measured.rank_bytes)
