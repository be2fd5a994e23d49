"""``fedmpi sbatch``, and what it shares with sweep."""

import os
import sys

import click

from fedmpi import stop
from fedmpi.commands.given import as_arguments, check_parts, run_file
from fedmpi.commands.say import say
from fedmpi.commands.train import train
from fedmpi.errors import FedError, UserError
from fedmpi.options import DEFAULTS


def slurm_options(command):
    """The options that say what is asked of a cluster, on ``command``."""
    for option in reversed((
            click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Nodes."),
            click.option("--ranks", type=click.IntRange(1), help="Ranks in all.  [default: a worker a client, and the "
                         "server]"),
            click.option("--gpus", type=click.IntRange(0), default=0, show_default=True, help="GPUs a node."),
            click.option("--memory", default="", help="Memory a node, such as 8G; 0: all.  [default: as estimated]"),
            click.option("--time", default="01:00:00", show_default=True, help="Wall time of one start."),
            click.option("--account", help="Who pays."),
            click.option("--queue", help="The cluster's partition."),
            click.option("--modules", help="What module load is to load, such as 'python mpich'."),
            click.option("--venv", help="The virtual environment to activate."),
            click.option("--conda", help="The conda environment to activate."),
            click.option("--container", help="The image that apptainer runs fedmpi in."),
            click.option("--launcher", default="mpirun", show_default=True, help="mpirun or srun, with options: "
                         "'srun --mpi=pmix'."),
            click.option("--signal", default=stop.USUAL, show_default=True, help="What asks it to stop, seconds before "
                         "the end."),
            click.option("--requeues", type=click.IntRange(0), default=10, show_default=True,
                         help="Times that it comes "
                         "back."))):
        command = option(command)
    return command


@click.command(params=[option for option in train.params if option.name not in ("resume", "dry_run")])
@slurm_options
@click.option("--measure", is_flag=True, help="Play a little of it here first, as train --dry-run does, for time and "
              "memory; imports torch.")
@click.option("--script", type=click.Path(dir_okay=False), help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
def sbatch(measure, script, submit, **given):
    """A batch script for Slurm that trains with these options, stops in time, queues itself again and goes on.

    The data's --partition is not the cluster's: that is --queue."""
    from fedmpi import sbatch as slurm
    check_script(script, submit)
    job = slurm.Job(**{name: given.pop(name) for name in slurm.Job._fields})
    given["out"] = given["out"] or run_file(given["seed"] or 0)
    arguments = as_arguments(given)
    check_parts(given)
    options = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    job = job._replace(ranks=job.ranks or slurm.cohort(options) + 1)
    slurm.check(job, options)
    measured = _measured(options) if measure else None
    slurm.check(job, options, measured)
    for line in slurm.told(job, options, measured):
        say(line)
    text = slurm.script(job, options, arguments, sys.argv[1:], measured)
    deliver(text, script, submit)


def check_script(script, submit):
    """Refuse before any work what --script and --submit cannot do."""
    import shutil
    if script and os.path.exists(script):
        raise UserError(f"--script {script} exists already")
    if submit and not script:
        raise UserError("--submit needs --script FILE")
    if submit and not shutil.which("sbatch"):
        raise UserError("--submit needs Slurm's sbatch, which is not in PATH here: leave it out, and take the script "
                        "to where it is")


def deliver(text, script, submit):
    """A batch script to the terminal, or into its file and to Slurm. What Slurm refuses is removed: it says nothing
    that the command does not, and would be in the way of the next try."""
    import subprocess
    if not script:
        click.echo(text, nl=False)
        return
    with open(script, "x", encoding="utf-8") as file:
        file.write(text)
    if submit and (code := subprocess.run(["sbatch", script], check=False).returncode):
        os.remove(script)
        raise FedError(f"sbatch refused the script (exit code {code}, see above), and {script} is removed: nothing is "
                       "queued, the same command may try again")


def _measured(options):
    """What a round takes, by a short run in this process."""
    from fedmpi import plan, sbatch as slurm
    found = plan.played(options, say)[-1]
    return slurm.Measured(found.round_s, found.shared_s, found.rank_bytes)
