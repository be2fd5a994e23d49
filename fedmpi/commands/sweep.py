"""``fedmpi sweep``."""

import os

import click

from fedmpi.build.advice import check_keys
from fedmpi.build.options import DEFAULTS
from fedmpi.commands import completion
from fedmpi.commands.runs import (
    all_options, array, check_data, check_script, counted, deliver, known_options, on_command_line,
    play_all, refuse_slurm, slurm_options, start_of_ranks, toml, typed, underscored)
from fedmpi.commands.say import say
from fedmpi.core import stop
from fedmpi.core.errors import UserError
from fedmpi.core.wide import aligned, terminal_width
from fedmpi.core.words import plural


def _read_sweep(context, parameter, path):
    """``GRID.toml`` as tables; its [slurm] becomes defaults, and flags override them."""
    from fedmpi.cluster import sbatch
    from fedmpi.study import sweep as sweeps
    grid = toml(path, path)
    sweeps.check_tables(grid, path)
    for name, table in grid.items():
        if isinstance(table, dict):
            grid[name] = underscored(table)
    # Names of files, and stopping early, are no options of a sweep's runs.
    allowed = [name for name in DEFAULTS if name not in ("out", "until")]
    for name in ("fixed", "grid"):
        table = grid.get(name, {})
        check_keys(table, allowed, f"{path}: [{name}]")
    for run in grid.get("run", []):
        options = underscored(run)
        check_keys(options, allowed, f"{path}: [[run]]")
    slurm = dict(grid.get("slurm", {}))
    slurm_keys = [*sbatch.Job._fields, "at_once"]
    check_keys(slurm, slurm_keys, f"{path}: [slurm]")
    # A single option of sbatch needs no list in the file.
    if isinstance(slurm.get("sbatch"), str):
        slurm["sbatch"] = [slurm["sbatch"]]
    # Click asks it for every option that is not on the command line.
    context.default_map = slurm
    return grid | {"path": path}


@click.command(short_help="Many runs from one file, here or as an array job.")
@click.argument(
    "grid", metavar="GRID.toml", is_eager=True, callback=_read_sweep,
    shell_complete=completion.files(".toml"))
@slurm_options
@click.option(
    "--at-once", type=click.IntRange(0), default=0,
    help="Runs at a time, of an array job; 0: all.")
@click.option(
    "--script", type=click.Path(dir_okay=False),
    help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
@click.option(
    "--here", is_flag=True,
    help="Play the runs on this machine, each in a process of its own or on --ranks N; a line a "
         "run, its own output in a .log beside its run file.")
@click.option(
    "--parallel", type=click.IntRange(1), default=1, show_default=True,
    help="Runs at a time, with --here.")
@click.option(
    "--overwrite", is_flag=True,
    help="Play anew what failed, and what lies under a run's name with other options. What never "
         "had a round is played anew without being asked.")
@click.option("--dry-run", is_flag=True, help="Only list the runs and how far they are.")
def sweep(grid, at_once, script, submit, here, parallel, overwrite, dry_run, **job_options):
    """Many runs from one file: a batch script for an array job of the unfinished ones, or --here.

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
    _check_here(here, dry_run)
    folder = grid.get("folder") or _usual_folder(grid["path"])
    recorded = known_options(folder)
    points = _points(grid, folder, recorded)
    states = [sweeps.state(folder, point, recorded) for point in points]
    anew = sweeps.replaced(folder, points, states, overwrite)
    todo = _todo(points, states, anew)
    # A listing changes nothing on the disk.
    if dry_run:
        click.echo(_listed(points, states))
    _say_counts(folder, states, anew)
    if script and not todo:
        say(f"{script} is not written: there is nothing to play")
    if dry_run or not todo:
        return 0
    if here:
        todo_points = [points[number] for number in todo]
        start = start_of_ranks(job_options)
        check_data([point.options for point in todo_points])
        sweeps.clear(folder, anew)
        sweeps.freeze(folder, points)
        return _play_here(folder, todo_points, parallel, start)
    _warn_of_running(points, states, anew)
    text = array(folder, points, todo, at_once, job_options)
    # Once the script is sure to be right.
    sweeps.clear(folder, anew)
    sweeps.freeze(folder, points)
    deliver(text, script, submit)
    return 0


def _check_here(here, dry_run):
    """UserError for options without a place beside --here, or only beside it."""
    if here:
        refuse_slurm("of a batch script, which has no place beside --here")
    if here and dry_run:
        raise UserError("--here has no place beside --dry-run")
    if on_command_line("parallel") and not here:
        raise UserError("--parallel is of --here; runs at a time of an array job are --at-once")


def _usual_folder(path):
    """``runs/grid`` of ``somewhere/grid.toml``."""
    file_name = os.path.basename(path)
    stem, _ = os.path.splitext(file_name)
    return os.path.join("runs", stem)


def _warn_of_running(points, states, anew):
    """Say so if a run that is being played is in the script, too."""
    for point, state in zip(points, states):
        if state.status == "running" and point.name not in anew:
            say("warning: what is running is in the script too: start it when no job plays these "
                "runs any more")
            return


def _todo(points, states, anew):
    """The numbers of the unfinished runs and of the ones to play anew."""
    numbers = []
    for number, (point, state) in enumerate(zip(points, states)):
        if state.status != "finished" or point.name in anew:
            numbers.append(number)
    return numbers


def _say_counts(folder, states, anew):
    """``4 runs in runs/grid: 3 finished, 1 missing``, and the runs to play anew."""
    counts = counted(state.status for state in states)
    noun = "runs" if len(states) > 1 else "run"
    say(f"{len(states)} {noun} in {folder}: {counts}")
    if anew:
        listed = ", ".join(anew)
        say(f"to be played anew: {listed}")


def _points(grid, folder, recorded):
    """The runs of a sweep, checked by train's own checks; ``recorded`` are the options of the runs
    in the folder."""
    from fedmpi.study import sweep as sweeps
    where = grid["path"]
    fixed = grid.get("fixed", {})
    combinations = grid.get("grid", {})
    further = [underscored(run) for run in grid.get("run", [])]
    # The options of each run beside the fixed ones.
    own = sweeps.combined(combinations, further)
    written = []
    for number, options in enumerate(own):
        checked = typed(fixed | options, f"{where}: run {number}")
        written.append(checked)
    resolved = [all_options(options) for options in written]
    return sweeps.named(own, written, resolved, recorded, _played(folder), where)


def _played(folder):
    """The names of the runs with a run file in the folder."""
    if not os.path.isdir(folder):
        return set()
    names = set()
    for file_name in os.listdir(folder):
        name, ending = os.path.splitext(file_name)
        if ending == ".h5":
            names.add(name)
    return names


def _listed(points, states):
    """A line a run: its number, name and progress."""
    rows = []
    for number, (point, state) in enumerate(zip(points, states)):
        planned = point.options["rounds"]
        progress = f"{state.rounds}/{planned}"
        rows.append((str(number), point.name, state.status, progress))
    head = ("run", "name", "status", "rounds")
    # Names and statuses to the left, numbers to the right.
    lines = aligned(head, rows, (1, 2), terminal_width())
    return "\n".join(lines)


def _play_here(folder, points, parallel, start):
    """Play the runs, a line for each. The exit code: COME_BACK if stopped, else 1 if any failed."""
    failed = []

    def line(name, code, seconds):
        # A stopped run has not failed: it goes on with the next call.
        if code not in (0, stop.COME_BACK):
            failed.append(f"{name} (exit code {code})")
        return _ended(folder, name, code, seconds)

    names = [point.name for point in points]
    datasets = {point.options["dataset"] for point in points}
    code = play_all(folder, names, start, datasets, parallel, line)
    if code == stop.COME_BACK:
        return code
    num_played = len(points) - len(failed)
    text = f"{num_played} of {len(points)} played"
    if failed:
        listed = ", ".join(failed)
        text += f"; failed: {listed}"
    say(text)
    return code


def _ended(folder, name, code, seconds):
    """A run's end, in a line: its file, accuracy and time, or the failure."""
    from fedmpi.study import sweep as sweeps
    from fedmpi.read.report.text import human_seconds
    from fedmpi.study.play import last_line
    file = sweeps.path(folder, name, "h5")
    took = human_seconds(seconds)
    rounds, value = _reached(file)
    if code == stop.COME_BACK:
        return f"{file}: stopped after {plural(rounds, 'round')}, {took}"
    if code:
        log = sweeps.path(folder, name, "log")
        return (
            f"{file}: FAILED after {plural(rounds, 'round')} (exit code {code}), {took}: "
            f"{last_line(folder, name)}; see {log}")
    return f"{file}: done, {value}, {took}"


def _reached(file):
    """``(rounds, text of the last test headline)`` of a run file, if it exists."""
    from fedmpi.read.headline import headline
    from fedmpi.read.report import final_metrics
    from fedmpi.read.report.text import measure_text
    from fedmpi.store import read_run
    # A run may fail before it has a file.
    if not os.path.exists(file):
        return 0, "accuracy unknown"
    run = read_run(file, {"rounds"})
    leading = headline(run)
    value = final_metrics(run).get(f"final_{leading.name}")
    text = f"{leading.word} unknown"
    if value is not None:
        text = f"{leading.word} {measure_text(value)}"
    return len(run.ends), text
