"""``fedmpi sbatch``."""

import sys

import click

from fedmpi.commands.given import Options, run_file
from fedmpi.commands.runs import (all_options, arguments, check_parts, check_script, deliver,
                                  slurm_options)
from fedmpi.commands.say import say
from fedmpi.commands.train import train


@click.command(cls=Options, params=[option for option in train.params
                                    if option.name not in ("resume", "dry_run", "overwrite")])
@slurm_options
@click.option("--measure", is_flag=True, help="Play a little of it here first, as train --dry-run does, for time and "
              "memory; imports torch.")
@click.option("--script", type=click.Path(dir_okay=False), help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
def sbatch(measure, script, submit, **given):
    """A batch script for Slurm that trains with these options, stops in time, queues itself again and goes on.

    The data's --partition is not the cluster's: that is --queue."""
    from fedmpi.cluster import sbatch as slurm
    from fedmpi.cluster.foretell import foretold
    from fedmpi.cluster.script import script as batch_script
    check_script(script, submit)
    job = slurm.Job(**{name: given.pop(name) for name in slurm.Job._fields})
    given["out"] = given["out"] or run_file(given["seed"] or 0)
    written = arguments(given)
    check_parts(given)
    options = all_options(given)
    job = job._replace(ranks=job.ranks or slurm.cohort(options) + 1)
    slurm.check(job, options)
    measured = _measured(options) if measure else None
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
