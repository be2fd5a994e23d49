"""``fedmpi train``."""

import os

import click

from fedmpi.commands import completion
from fedmpi.commands.run_options import (Options, data_options, part, read_config, read_like, run_file,
                                   separated, several, tell_changes)
from fedmpi.commands.runs import check_parts
from fedmpi.commands.say import naming, say
from fedmpi.core.errors import UserError
from fedmpi.run.launcher import rank_and_size, speaks
from fedmpi.build.options import opened
from fedmpi.core.wide import terminal_width


@click.command(cls=Options)
@data_options
@part("model", "The network")
@several(
    "also-model",
    "Another network that clients train: they are dealt out evenly to --model and these")
@part("server-model", "The network that the server alone has, for strategies with one", "none")
@click.option(
    "--init-from", type=click.Path(dir_okay=False), metavar="MODEL.safetensors",
    shell_complete=completion.files(".safetensors"),
    help="Begin with the weights of this file, of fedmpi export-model or of the same names and "
         "shapes.  [default: as --model and --seed make them]")
@part("adapters", "Small matrices that are trained beside a frozen model")
@part("task", "What it is trained for and measured by")
@click.option(
    "--cohort", type=click.IntRange(0),
    help="Clients a round, drawn by --sampler; 0: all.  [default: 0]")
@click.option(
    "--rounds", type=click.IntRange(1),
    help="Rounds; schedules end here. With --resume: another number than before, where no "
         "schedule depends on it.  [default: 50]")
@click.option(
    "--local-epochs", type=click.IntRange(0),
    help="Epochs a client trains a round.  [default: 2]")
@click.option(
    "--local-steps", type=click.IntRange(0),
    help="Steps a client trains a round, instead of epochs: as many for all, whatever samples "
         "they hold.  [default: by --local-epochs]")
@click.option("--batch-size", type=click.IntRange(1), help="Samples a step.  [default: 10]")
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True),
    help="The clients' learning rate.  [default: 0.1]")
@part("schedule", "How the learning rate changes, over the rounds or over a client's steps")
@part("optimiser", "How gradients move the clients' models")
@click.option(
    "--clip-norm", type=click.FloatRange(0),
    help="The largest norm of a step's gradient, longer ones are shortened to it; 0: any.  "
         "[default: 0]")
@click.option(
    "--accumulate", type=click.IntRange(1),
    help="Parts in which a batch goes through the network, one after the other: the same step but "
         "for rounding, with the memory of a part.  [default: 1]")
@several(
    "augment",
    "What is done to training images each time that they are seen; flip,crop is both",
    separated)
@click.option(
    "--precision", type=click.Choice(["float32", "bf16"]),
    help="Of the clients' products and convolutions; weights and what is sent stay float32. bf16 "
         "is faster where the processor or GPU has it.  [default: float32]")
@click.option(
    "--kernel", metavar="dense|auto|single|block|LAYER=KERNEL,...",
    help="Of the products of pruned linear layers in training, on a CPU: single and block skip "
         "pruned weights. auto times them at the start, layer by layer, and keeps dense where it "
         "is no slower.  [default: dense]")
@part("strategy", "How clients train and the server merges")
@part("pruner", "Which weights live")
@part("contribution", "How contributions are scored")
@part("weighting", "What weight in the merge a score earns")
@several("observe", "More estimators of contributions, recorded and not used")
@part("codec", "Values on the wire")
@part("devices", "How fast and how often there the clients' devices are, in virtual time")
@click.option(
    "--server-gflops", type=click.FloatRange(0),
    help="GFLOP/s of the server's own compute in virtual time; 0: it takes no time.  [default: 0]")
@part("sampler", "Who takes part in a round")
@part("timing", "When the server merges, in virtual time")
@click.option("--on-error", type=click.Choice(["fatal", "retry", "drop"]),
              help="What becomes of a client whose training "
              "raises: the run ends, it is tried once more and then left out, or left out.  [default: fatal]")
@click.option(
    "--quorum", type=click.FloatRange(0, 1),
    help="Least share of a round's answers that must be fit for merging, diverged and failed ones "
         "left out; else the run ends.  [default: 0.5]")
@click.option(
    "--out", type=click.Path(dir_okay=False),
    help="The run file.  [default: runs/TIME-SEED-PROCESS.h5]")
@click.option(
    "--overwrite", is_flag=True,
    help="Begin anew where the file of --out has a run already, whose rounds and checkpoints go. "
         "A run without any round is replaced without being asked.")
@click.option(
    "--resume", type=click.Path(dir_okay=False), metavar="RUN.h5",
    shell_complete=completion.files(".h5"),
    help="Go on with that run, on any number of ranks.")
@click.option(
    "--until", type=click.IntRange(0),
    help="Stop after this round; --resume goes on.  [default: the last]")
@click.option(
    "--evaluate-every", type=click.IntRange(1),
    help="Rounds from one evaluation on the test and validation sets to the next; the last round "
         "always has one.  [default: 1]")
@click.option(
    "--client-test-every", type=click.IntRange(0),
    help="Rounds from one evaluation of all clients on their own test parts to the next; the last "
         "round always has one. 0: as often as costs a tenth of the training at most.  [default: "
         "0]")
@click.option(
    "--save-every", type=click.IntRange(0),
    help="Rounds between checkpoints; 0: after each round, but not within a second of the last "
         "one.  [default: 0]")
@click.option("--keep", type=click.IntRange(1), help="Checkpoints kept.  [default: 2]")
@click.option(
    "--silence", type=click.FloatRange(0),
    help="Seconds without a sign of life after which a rank counts as lost and the run ends; 0: "
         "never.  [default: 60]")
@click.option(
    "--task-limit", type=click.FloatRange(0),
    help="Seconds after which a rank that is still at one client counts as hung and the run ends, "
         "alive or not; 0: never.  [default: 0]")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where clients train.  [default: auto]")
@click.option(
    "--server-device", type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where rank 0 evaluates; auto: on a GPU where clients train on one, which it shares with "
         "them. Evaluations on CPU and GPU differ in bits.  [default: auto]")
@click.option(
    "--together", type=click.IntRange(0),
    help="Clients that a worker trains at once, as one wide network; their results differ from "
         "one by one by rounding. 0: the fastest, by a short timing here.  [default: 1]")
@click.option(
    "--ranks-per-client", type=click.IntRange(1),
    help="Workers that train one client together, each with its part of every batch, of the "
         "gradients' sums and of the optimiser's state; results differ from one rank's by "
         "rounding.  [default: 1]")
@click.option(
    "--config", type=click.Path(), is_eager=True, expose_value=False, callback=read_config,
    metavar="FILE.toml", shell_complete=completion.files(".toml"),
    help="Options from a file; flags win.")
@click.option(
    "--like", type=click.Path(), is_eager=True, expose_value=False, callback=read_like,
    metavar="RUN.h5", shell_complete=completion.files(".h5"),
    help="Options of an earlier run; those of --config and flags win.")
@click.option(
    "--dry-run", is_flag=True,
    help="Print the plan by playing a little of it: bytes, memory, FLOPs, time; train nothing, "
         "write nothing.")
def train(resume, dry_run, overwrite, **flags):
    """Train; one HDF5 run file comes out. Under mpirun rank 0 is the server, the others train
    clients."""
    # Here, not above: --help and completion need no torch.
    from fedmpi.run.session import train as play
    check_parts(flags)
    _check_overwrite(overwrite, resume, flags)
    context = click.get_current_context()
    if "like" in context.meta and resume:
        raise UserError("--like has no place beside --resume: a run that goes on keeps its options")
    if dry_run:
        if "like" in context.meta:
            tell_changes(context, flags, say)
        return _planned(flags, resume, overwrite)
    if resume:
        if context.get_parameter_source("out") == click.core.ParameterSource.COMMANDLINE:
            raise UserError("--out has no place beside --resume: the run goes on in its own file")
        return play(flags, resume, say, naming(resume))
    options = opened(flags)
    if options["out"] is None:
        options["out"] = run_file(options["seed"])
    # The file's name comes first, so that the run can be watched from the start.
    tell = naming(options["out"])
    if "like" in context.meta:
        tell_changes(context, flags, tell)
    return play(options, None, say, tell, overwrite)


def _check_overwrite(overwrite, resume, flags):
    """UserError if --overwrite would have no effect."""
    if overwrite and resume:
        raise UserError(
            "--overwrite has no place beside --resume: a run that goes on keeps its rounds")
    if overwrite and not flags["out"]:
        raise UserError(
            "--overwrite has no effect without --out FILE.h5: each run takes a new name by itself")


def _planned(flags, resume, overwrite):
    """Print the run's plan. Ranks other than 0 have nothing to do; MPI is not touched."""
    if resume:
        raise UserError(
            "--dry-run has no place beside --resume: fedmpi show RUN.h5 tells how long its rounds "
            "took")
    if not speaks():
        return 0
    from fedmpi.build.notes import warnings
    from fedmpi.run import plan
    from fedmpi.store import check_target
    options = opened(flags)
    out = options["out"] or run_file(options["seed"])
    # The folder runs is made by train.
    if os.path.dirname(out) != "runs" or os.path.isdir("runs"):
        check_target(out, overwrite)
    _, size = rank_and_size()
    ranks = size or 1
    setup, measured = plan.played(options, say, ranks)
    for line in plan.plan_lines(setup, measured, ranks, out, terminal_width()):
        click.echo(line)
    for line in warnings(setup):
        click.echo(f"warning: {line}")
    return 0
