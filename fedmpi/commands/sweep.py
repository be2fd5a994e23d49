"""``fedmpi sweep``."""

import os

import click

from fedmpi.core import stop
from fedmpi.build.advice import check_keys
from fedmpi.commands import completion
from fedmpi.commands.runs import (all_options, array, check_data, check_script, deliver,
                                  known_options, on_command_line, play_all, refuse_slurm,
                                  slurm_options, start_of_ranks, toml, typed, underscored)
from fedmpi.commands.say import say
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS
from fedmpi.core.wide import aligned, terminal_width


def _read_sweep(context, parameter, path):
    """``GRID.toml`` as tables; what its [slurm] says become defaults, which flags override."""
    from fedmpi.cluster import sbatch
    from fedmpi.study import sweep as sweeps
    found = toml(path, path)
    sweeps.check_tables(found, path)
    found = {name: underscored(table) if isinstance(table, dict) else table for name, table in found.items()}
    known = [name for name in DEFAULTS if name not in ("out", "until")]
    for name, table in [("[fixed]", found.get("fixed", {})), ("[grid]", found.get("grid", {}))] + [
            ("[[run]]", underscored(each)) for each in found.get("run", [])]:
        check_keys(table, known, f"{path}: {name}")
    check_keys(found.get("slurm", {}), [*sbatch.Job._fields, "at_once"], f"{path}: [slurm]")
    others = found.get("slurm", {}).get("sbatch", [])
    listed = {"sbatch": [others]} if isinstance(others, str) else {}
    context.default_map = found.get("slurm", {}) | listed
    return found | {"path": path}


@click.command()
@click.argument("grid", metavar="GRID.toml", is_eager=True, callback=_read_sweep,
                shell_complete=completion.files(".toml"))
@slurm_options
@click.option("--at-once", type=click.IntRange(0), default=0, help="Runs at a time, of an array job; 0: all.")
@click.option("--script", type=click.Path(dir_okay=False), help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
@click.option("--here", is_flag=True, help="Play the runs on this machine, each in a process of its own or on --ranks "
              "N; a line a run, its own output in a .log beside its run file.")
@click.option("--parallel", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time, with --here.")
@click.option("--overwrite", is_flag=True, help="Play anew what failed, and what lies under a run's name with other "
              "options. What never had a round is played anew without being asked.")
@click.option("--dry-run", is_flag=True, help="Only list the runs and how far they are.")
def sweep(grid, at_once, script, submit, here, parallel, overwrite, dry_run, **given):
    """Many runs from one file: a batch script for an array job of those that are not finished yet, or --here.

    \b
    folder = "runs/noise"             # where runs lie, and the options of each
    [fixed]                           # options of train
    rounds = 20
    [grid]                            # every combination is a run
    strategy = ["fedavg", "thesis"]
    seed = [0, 1, 2]
    [[run]]                           # one more run
    strategy = "krum"
    [slurm]                           # options of this command
    time = "00:30:00"
    """
    from fedmpi.study import sweep as sweeps
    check_script(script, submit)
    if here:
        refuse_slurm("of a batch script, which has no place beside --here")
    if here and dry_run:
        raise UserError("--here has no place beside --dry-run")
    if on_command_line("parallel") and not here:
        raise UserError("--parallel is of --here; runs at a time of an array job are --at-once")
    folder = grid.get("folder") or os.path.join("runs", os.path.splitext(os.path.basename(grid["path"]))[0])
    known = known_options(folder)
    points = _points(grid, folder, known)
    states = [sweeps.state(folder, point, known) for point in points]
    anew = sweeps.replaced(folder, points, states, overwrite)
    todo = [number for number, (point, state) in enumerate(zip(points, states))
            if state.status != "finished" or point.name in anew]
    if dry_run:
        click.echo(_listed(points, states))
    say(_counted(folder, [state.status for state in states]))
    if anew:
        say(f"to be played anew: {', '.join(anew)}")
    if script and not todo:
        say(f"{script} is not written: there is nothing to play")
    if dry_run or not todo:
        return 0
    todo_points = [points[number] for number in todo]
    if here:
        start = start_of_ranks(given)
        check_data([point.options for point in todo_points])
        sweeps.clear(folder, anew)
        sweeps.freeze(folder, points)
        return _play_here(folder, todo_points, parallel, start)
    if any(state.status == "running" and point.name not in anew for point, state in zip(points, states)):
        say("warning: what is running is in the script too: start it when no job plays these runs any more")
    text = array(folder, points, todo, at_once, given)
    sweeps.clear(folder, anew)
    sweeps.freeze(folder, points)
    deliver(text, script, submit)


def _counted(folder, statuses):
    """``4 runs in runs/grid: 3 finished, 1 missing``."""
    counts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)]
    return f"{len(statuses)} run{'s' * (len(statuses) > 1)} in {folder}: {', '.join(counts)}"


def _points(grid, folder, known):
    """The runs of a sweep, checked as train would check them; ``known`` are the options of those in the folder."""
    from fedmpi.study import sweep as sweeps
    where = grid["path"]
    own = sweeps.combined(grid.get("grid", {}), [underscored(run) for run in grid.get("run", [])])
    raw = [grid.get("fixed", {}) | each for each in own]
    given = [typed(each, f"{where}: run {number}") for number, each in enumerate(raw)]
    held = os.listdir(folder) if os.path.isdir(folder) else []
    played = {name.removesuffix(".h5") for name in held if name.endswith(".h5")}
    return sweeps.named(own, given, [all_options(each) for each in given], known, played, where)


def _listed(points, states):
    """A line a run: its number, name, how far it is."""
    rows = [(str(number), point.name, state.status, f"{state.rounds}/{point.options['rounds']}")
            for number, (point, state) in enumerate(zip(points, states))]
    return "\n".join(aligned(("run", "name", "status", "rounds"), rows, (1, 2), terminal_width()))


def _play_here(folder, points, parallel, start):
    """Play the runs, a line for each; the exit code of one that was asked to stop, else 1 where any failed."""
    failed = []

    def line(name, code, seconds):
        if code not in (0, stop.COME_BACK):
            failed.append(f"{name} (exit code {code})")
        return _ended(folder, name, code, seconds)

    datasets = {point.options["dataset"] for point in points}
    code = play_all(folder, [point.name for point in points], start, datasets, parallel, line)
    if code != stop.COME_BACK:
        told = f"; failed: {', '.join(failed)}" if failed else ""
        say(f"{len(points) - len(failed)} of {len(points)} played{told}")
    return code


def _ended(folder, name, code, seconds):
    """How a run ended, in a line: its file, accuracy and time, or what went wrong."""
    from fedmpi.study import sweep as sweeps
    from fedmpi.read.report.text import human_seconds
    from fedmpi.study.play import last_line
    file, took = sweeps.path(folder, name, "h5"), human_seconds(seconds)
    rounds, value = _reached(file)
    if code == stop.COME_BACK:
        return f"{file}: stopped after {rounds} rounds, {took}"
    if code:
        return (f"{file}: FAILED after {rounds} rounds (exit code {code}), {took}: {last_line(folder, name)}; see "
                f"{sweeps.path(folder, name, 'log')}")
    return f"{file}: done, {value}, {took}"


def _reached(file):
    """``(rounds, test headline after the last of them that was evaluated, as a text)`` of a run file, if there is
    one."""
    from fedmpi.read.headline import headline
    from fedmpi.read.report import final_metrics
    from fedmpi.store import read_run
    if not os.path.exists(file):
        return 0, "accuracy unknown"
    run = read_run(file, {"rounds"})
    leading = headline(run)
    found = final_metrics(run).get(f"final_{leading.name}")
    return len(run.ends), f"{leading.word} " + ("unknown" if found is None else f"{found:.4f}")
