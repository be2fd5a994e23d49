"""``fedmpi sweep``."""

import os
import sys

import click

from fedmpi import stop
from fedmpi.advice import check_keys
from fedmpi.commands import completion
from fedmpi.commands.runs import (array, check_script, deliver, known_options, refuse_slurm,
                                  slurm_options, start_of_ranks, toml, typed, underscored)
from fedmpi.commands.say import say
from fedmpi.errors import UserError
from fedmpi.options import DEFAULTS
from fedmpi.wide import aligned, terminal_width


def _read_sweep(context, parameter, path):
    """``GRID.toml`` as tables; what its [slurm] says become defaults, which flags override."""
    from fedmpi import sbatch, sweep as sweeps
    found = toml(path, path)
    sweeps.check_tables(found, path)
    found = {name: underscored(table) if isinstance(table, dict) else table for name, table in found.items()}
    known = [name for name in DEFAULTS if name not in ("out", "until")]
    for name, table in [("[fixed]", found.get("fixed", {})), ("[grid]", found.get("grid", {}))] + [
            ("[[run]]", underscored(each)) for each in found.get("run", [])]:
        check_keys(table, known, f"{path}: {name}")
    check_keys(found.get("slurm", {}), [*sbatch.Job._fields, "at_once"], f"{path}: [slurm]")
    context.default_map = found.get("slurm", {})
    return found | {"path": path}


@click.command()
@click.argument("grid", metavar="GRID.toml", is_eager=True, callback=_read_sweep,
                shell_complete=completion.files(".toml"))
@slurm_options
@click.option("--at-once", type=click.IntRange(0), default=0, help="Runs at a time, of an array job; 0: all.")
@click.option("--script", type=click.Path(dir_okay=False), help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
@click.option("--here", is_flag=True, help="Play the runs one after the other on this machine, on --ranks N.")
@click.option("--dry-run", is_flag=True, help="Only list the runs and how far they are.")
def sweep(grid, at_once, script, submit, here, dry_run, **given):
    """Many runs from one file: a batch script for an array job of those that are not finished yet, or --here.

    \b
    folder = "runs/noise"             # where runs lie, and the options of each
    [fixed]                           # options of train
    rounds = 20
    [grid]                            # every combination is a run
    strategy = ["fedavg", "thesis"]
    seed = [0, 1, 2]
    [[run]]                           # one more run
    strategy = "fltrust"
    [slurm]                           # options of this command
    time = "00:30:00"
    """
    from fedmpi import sweep as sweeps
    check_script(script, submit)
    if here:
        refuse_slurm("of a batch script, which has no place beside --here")
    if here and dry_run:
        raise UserError("--here has no place beside --dry-run")
    folder = grid.get("folder") or os.path.join("runs", os.path.splitext(os.path.basename(grid["path"]))[0])
    points = _points(grid, folder)
    states = [sweeps.state(folder, point) for point in points]
    todo = [number for number, (status, _) in enumerate(states) if status != "finished"]
    if dry_run:
        click.echo(_listed(points, states))
    counts = [f"{sum(status == each for status, _ in states)} {each}" for each in dict.fromkeys(s for s, _ in states)]
    say(f"{len(points)} run{'s' * (len(points) > 1)} in {folder}: {', '.join(counts)}")
    if dry_run or not todo:
        return 0
    if here:
        start = start_of_ranks(given)
        sweeps.freeze(folder, points)
        return _played_here(folder, [points[number].name for number in todo], start)
    if any(status == "running" for status, _ in states):
        say("warning: what is running is in the script too: start it when no job plays these runs any more")
    text = array(folder, points, todo, at_once, given)
    sweeps.freeze(folder, points)
    deliver(text, script, submit)


def _points(grid, folder):
    """The runs of a sweep, checked as train would check them."""
    from fedmpi import sweep as sweeps
    where = grid["path"]
    raw = sweeps.combined(grid.get("fixed", {}), grid.get("grid", {}),
                          [underscored(run) for run in grid.get("run", [])])
    given = [typed(each, f"{where}: run {number}") for number, each in enumerate(raw)]
    known = known_options(folder)
    points = sweeps.named(given, [DEFAULTS | each for each in given], known, where)
    sweeps.check_known(points, known, folder)
    return points


def _listed(points, states):
    """A line a run: its number, name, how far it is."""
    rows = [(str(number), point.name, status, f"{rounds}/{point.options['rounds']}")
            for number, (point, (status, rounds)) in enumerate(zip(points, states))]
    return "\n".join(aligned(("run", "name", "status", "rounds"), rows, (1, 2), terminal_width()))


def _played_here(folder, names, start):
    """Play the runs one after the other, ``start`` before the command of each; the exit code of one that was asked to
    stop, else 1 where any failed."""
    from fedmpi import sweep as sweeps
    failed = []
    for number, name in enumerate(names, 1):
        say(f"\n{name}, {number} of {len(names)}")
        code = sweeps.play([*start, sys.executable, "-m", "fedmpi", "train", *sweeps.train_arguments(folder, name)])
        if code in (stop.COME_BACK, 130):
            say("stopped; the same command goes on")
            return code
        failed += [f"{name} (exit code {code})"] * (code != 0)
    say(f"\n{len(names) - len(failed)} of {len(names)} played" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0
