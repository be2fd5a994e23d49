"""``fedmpi experiment``: a whole study from a recipe, its tables, figures and verdicts."""

import importlib.resources
import json
import os

import click

from fedmpi.build.options import DEFAULTS, completed
from fedmpi.commands import runs
from fedmpi.core import stop
from fedmpi.core.errors import UserError
from fedmpi.core.wide import aligned, terminal_width, wrapped
from fedmpi.core.words import plural

# The exit code after Ctrl-C: 128 and the number of SIGINT.
INTERRUPTED = 130


@click.command(short_help="Play a whole study, with a verdict on each claim.")
@click.argument("recipe", required=False, metavar="[NAME|RECIPE.toml]")
@click.option(
    "--size", default="smoke", show_default=True,
    help="smoke, small, paper, or what the recipe has.")
@click.option(
    "--folder", type=click.Path(file_okay=False),
    help="Where runs and outcome lie.  [default: runs/NAME-SIZE]")
@click.option("--data-dir", help="Where data sets lie.  [default: data]")
@click.option(
    "--data", "files", multiple=True, metavar="NAME=FILE.h5",
    help="Take that HDF5 file where the recipe says dataset NAME. May be given several times.")
@click.option(
    "--copy", type=click.Path(dir_okay=False), metavar="FILE.toml",
    help="Write the recipe there, to be edited.")
@click.option(
    "--dry-run", is_flag=True,
    help="Only list the runs, how far they are, and the time left.")
@click.option("--report", is_flag=True, help="Only make tables and figures of what is there.")
@click.option(
    "--parallel", type=click.IntRange(1), default=1, show_default=True,
    help="Runs at a time on this machine.")
@click.option(
    "--overwrite", is_flag=True,
    help="Play anew what failed, and what lies under a run's name with other options. What never "
         "had a round is played anew without being asked.")
@click.option(
    "--array", is_flag=True,
    help="A batch script for a Slurm array of what is not finished, instead.")
@runs.slurm_options
@click.option(
    "--at-once", type=click.IntRange(0), default=0,
    help="Runs at a time, of the array; 0: all.")
@click.option(
    "--script", type=click.Path(dir_okay=False),
    help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
def experiment(
        recipe, size, folder, data_dir, files, copy, dry_run, report, parallel, overwrite, array,
        at_once, script, submit, **job_options):
    """A whole study: all runs not finished yet, then tables, figures, and a verdict on each claim.

    Without a name: the recipes there are. The same command goes on where the last one was stopped
    or killed. On this machine each run is one process, or --ranks N under the launcher; --array is
    for a cluster, and --report, afterwards, for what it has played."""
    if not recipe:
        click.echo(_listed())
        return 0
    name, text, tables = _read(recipe)
    if copy:
        _write(copy, text, "x")
        click.echo(copy)
        return 0
    _check_modes(report, dry_run, array, overwrite)
    if not array:
        runs.refuse_slurm("of a batch script, which is --array")
    runs.check_script(script, submit)
    study = _study(tables, name, size, data_dir, files)
    folder = folder or os.path.join("runs", f"{name}-{size}")
    study, anew = _with_known(study, folder, overwrite)
    if dry_run:
        click.echo(_plan(study, folder, parallel))
        return 0
    if report:
        return _report(study, folder, text)
    todo = _todo(study, folder, anew)
    if array:
        return _array(study, folder, todo, anew, at_once, job_options, script, submit)
    code = _play_here(study, folder, todo, anew, parallel, job_options)
    # A stopped study has no outcome yet; one with failed runs has.
    if code in (stop.COME_BACK, INTERRUPTED):
        return code
    return _report(study, folder, text) or code


def _check_modes(report, dry_run, array, overwrite):
    """UserError for options that cannot stand beside one another."""
    num_modes = report + dry_run + array
    if num_modes > 1:
        raise UserError("of --report, --dry-run and --array one at a time")
    if report and overwrite:
        raise UserError("--overwrite has no place beside --report, which plays nothing")


def _study(tables, name, size, data_dir, files):
    """The Study of a recipe's ``tables``, with the data sets of the command line."""
    from fedmpi.study.recipe import study as planned
    changes, unused = _changes(data_dir, files)
    study = planned(tables, name, size, changes, runs.typed)
    if unused:
        raise UserError(
            f"--data {unused[0]}=...: no run of size {size} in {name} is on a data set called "
            f"{unused[0]}")
    return study


def own_recipes():
    """``{name: file}`` of fedmpi's own recipes, sorted."""
    folder = importlib.resources.files("fedmpi") / "study" / "recipes"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    recipes = {}
    for file in files:
        name, _, ending = file.name.rpartition(".")
        if ending == "toml":
            recipes[name] = file
    return recipes


def _listed():
    width = terminal_width()
    lines = []
    for name, file in own_recipes().items():
        recipe = runs.toml(file, name)
        lines += wrapped(f"{name}  {recipe['title']}", width, "    ")
        for size, table in recipe["size"].items():
            about = table.get("about", "")
            # Further lines stand below the text, behind the size.
            lines += wrapped(f"      {size:<6} {about}", width, " " * 13)
    lines.append("")
    last = ("fedmpi experiment NAME --size SIZE plays one; --copy mine.toml writes it out for "
            "editing")
    lines += wrapped(last, width, "  ")
    return "\n".join(lines)


def _read(recipe):
    """``(name, text, tables)`` of a recipe of ours, or of a file."""
    from fedmpi.study.recipe_check import check_recipe
    name, file = _place(recipe)
    tables = runs.toml(file, recipe)
    check_recipe(tables, recipe)
    with open(file, encoding="utf-8") as source:
        return name, source.read(), tables


def _place(recipe):
    """``(name, file)`` of a recipe; capitals make no difference in our names."""
    ours = own_recipes()
    for name, file in ours.items():
        if name.lower() == recipe.lower():
            return name, file
    if not recipe.endswith(".toml"):
        listed = ", ".join(ours)
        raise UserError(
            f"there is no recipe {recipe}; there are {listed}, or name a file that ends on .toml")
    file_name = os.path.basename(recipe)
    return file_name.removesuffix(".toml"), recipe


def _write(path, text, mode="w"):
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists already") from None


def _changes(data_dir, files):
    """``(changes, unused)``: a function from a run's options to the ones changed by the command
    line, and the names of data sets still without a run."""
    swaps = {}
    for pair in files:
        name, equals, file = pair.partition("=")
        if not equals or not os.path.isfile(file):
            raise UserError(f"--data {pair}: say NAME=FILE.h5, with a file that exists")
        swaps[name] = file
    # A data set without a run is a mistake in writing.
    unused = list(swaps)

    def changes(options):
        changed = {}
        if data_dir:
            changed["data_dir"] = data_dir
        name = options.get("dataset", DEFAULTS["dataset"])
        if name in unused:
            unused.remove(name)
        if name in swaps:
            changed["dataset"] = swaps[name]
        return changed

    return changes, unused


def _with_known(study, folder, overwrite):
    """``(study, anew)``: the study, its runs named as in the folder, and the names of the runs to
    play anew.

    A recipe may be changed between calls. UserError if a name in the folder is another run's,
    without ``overwrite``."""
    from fedmpi.study import sweep as sweeps
    from fedmpi.study.outcome import states
    recorded = runs.known_options(folder)
    in_folder = _identities(recorded)
    # A run that the folder has under another name keeps that.
    points = _points(study)
    own = _identities({point.name: point.options for point in points})
    study = _renamed(study, own, in_folder)
    points = _points(study)
    run_states = states(study, folder)
    progress = []
    # Names have changed, their order has not.
    for point, own_identity in zip(points, own.values()):
        status, rounds, _ = run_states[point.name]
        changed = []
        if in_folder.get(point.name, own_identity) != own_identity:
            changed = sweeps.changed(point.options, recorded[point.name]) or ["this"]
        progress.append(sweeps.State(status, rounds, changed))
    return study, sweeps.replaced(folder, points, progress, overwrite)


def _renamed(study, own, in_folder):
    """The study, with the name of the same run in the folder for each of its runs; ``own`` and
    ``in_folder`` are ``{name: identity}`` of the study and of the folder."""
    name_of_identity = {identity: name for name, identity in in_folder.items()}
    new_name = {}
    for name, identity in own.items():
        new_name[name] = name_of_identity.get(identity, name)
    renamed_runs = {}
    for place, name in study.runs.items():
        renamed_runs[place] = new_name[name]
    renamed_options = {}
    for name, options in study.options.items():
        renamed_options[new_name[name]] = options
    return study._replace(runs=renamed_runs, options=renamed_options)


def _points(study):
    from fedmpi.study import sweep as sweeps
    points = []
    for name, options in study.options.items():
        every_option = runs.all_options(options)
        points.append(sweeps.Point(name, options, every_option))
    return points


def _identities(options_of):
    """``{name: identity}`` of runs, by ``{name: options}``.

    A data set in a file counts by the file's name, in whatever folder it lies."""
    from fedmpi.study.recipe import identity
    identities = {}
    for name, options in options_of.items():
        dataset = options["dataset"]
        if dataset.startswith("hdf5:file="):
            dataset = os.path.basename(dataset)
        identities[name] = identity(options | {"dataset": dataset})
    return identities


def _freeze(study, folder):
    """Write the options of each run beside its future run file, also if they are there: data may
    have moved since the last time."""
    from fedmpi.study import sweep as sweeps
    os.makedirs(folder, exist_ok=True)
    for name, options in study.options.items():
        lines = []
        for key, value in options.items():
            toml_value = json.dumps(value, ensure_ascii=False)
            lines.append(f"{key} = {toml_value}\n")
        path = sweeps.path(folder, name, "toml")
        _write(path, "".join(lines))


def _plan(study, folder, parallel):
    """The table of runs and their progress, then the remaining time."""
    from fedmpi.read.report.text import human_seconds
    from fedmpi.study.outcome import seconds_left, states
    progress = states(study, folder)
    rows = []
    num_done = 0
    for name, (status, rounds, seconds) in progress.items():
        last = study.options[name].get("rounds", DEFAULTS["rounds"])
        taken = human_seconds(seconds) if rounds else "-"
        rows.append((name, status, f"{rounds}/{last}", taken))
        num_done += status == "finished"
    time = "unknown until a round is played"
    left_s = seconds_left(study, progress)
    if left_s is not None:
        left = human_seconds(left_s / parallel)
        time = f"about {left}, loading not counted"
    width = terminal_width()
    head = ("run", "status", "rounds", "took")
    lines = [*aligned(head, rows, (0, 1), width), ""]
    summary = (
        f"{num_done} of {plural(len(progress), 'run')} done in {folder}; time left with --parallel "
        f"{parallel}: {time}")
    for line in (summary, *_lacks(study)):
        lines += wrapped(line, width, "  ")
    return "\n".join(lines)


def _lacks(study):
    """A line for each part of the paper missing in the recipe."""
    lacks = study.recipe.get("lacks", [])
    return [f"not in this study: {line}" for line in lacks]


def _todo(study, folder, anew):
    """The names of the unfinished runs and of the ones to play ``anew``; runs already begun come
    first."""
    from fedmpi.study.outcome import states
    status_of = {name: status for name, (status, _, _) in states(study, folder).items()}
    counts = runs.counted(status_of.values())
    runs.say(f"{plural(len(status_of), 'run')} in {folder}: {counts}")
    for line in _lacks(study):
        runs.say(line)
    if anew:
        listed = ", ".join(anew)
        runs.say(f"to be played anew: {listed}")
    # A study that goes on finishes its runs before it begins others.
    begun, missing = [], []
    for name, status in status_of.items():
        if status == "missing":
            missing.append(name)
        elif status != "finished" or name in anew:
            begun.append(name)
    return begun + missing


def _play_here(study, folder, todo, anew, parallel, job_options):
    """Play the runs ``todo`` on this machine; returns the exit code."""
    from fedmpi.study import sweep as sweeps
    start = runs.start_of_ranks(job_options)
    runs.check_data([completed(study.options[name]) for name in todo])
    sweeps.clear(folder, anew)
    _freeze(study, folder)
    if not todo:
        return 0
    return _play(study, folder, todo, parallel, start)


def _play(study, folder, names, parallel, start):
    """Play the runs; a line for each. The exit code: COME_BACK if stopped, else 1 if any failed."""
    from fedmpi.read.report.text import human_seconds
    from fedmpi.study.outcome import seconds_left, state, states
    from fedmpi.study.play import last_line
    progress = states(study, folder)

    def line(name, code, seconds):
        # The time left follows from the runs that have ended.
        progress[name] = state(folder, name)
        if code == stop.COME_BACK:
            return f"{name}: stopped"
        if code:
            return f"{name}: FAILED (exit code {code}): {last_line(folder, name)}"
        text = f"{name}: {human_seconds(seconds)}"
        left_s = seconds_left(study, progress)
        if left_s:
            left = human_seconds(left_s / parallel)
            text += f"; about {left} left"
        return text

    # The runs' parent process imports their readers once.
    datasets = {completed(study.options[name])["dataset"] for name in names}
    return runs.play_all(folder, names, start, datasets, parallel, line)


def _array(study, folder, todo, anew, at_once, job_options, script, submit):
    """Write the batch script of the runs ``todo``; returns the exit code."""
    from fedmpi.study import sweep as sweeps
    if not todo:
        return 0
    points = _points(study)
    names = set(todo)
    # A task of the array is a place in the list of all runs.
    numbers = [number for number, point in enumerate(points) if point.name in names]
    text = runs.array(folder, points, numbers, at_once, job_options)
    sweeps.clear(folder, anew)
    _freeze(study, folder)
    runs.deliver(text, script, submit)
    return 0


def _report(study, folder, text):
    """Write OUTCOME.md, outcome.json, recipe.toml and figures; show the verdicts."""
    from fedmpi.read.report import plain
    from fedmpi.study import figures, outcome_text
    from fedmpi.study.outcome import outcome
    if not os.path.isdir(folder):
        raise UserError(f"there is no folder {folder}: nothing has been played; leave --report out")
    findings, traces = outcome(study, folder)
    verdicts = outcome_text.terminal(findings, terminal_width())
    drawn = figures.draw(study, findings, traces, folder)
    page = outcome_text.markdown(findings, drawn)
    # JSON knows no named tuples.
    for claim in findings["claims"]:
        for judged in claim["judged"]:
            interval = judged["interval"]
            judged["interval"] = interval and interval._asdict()
    page_file = os.path.join(folder, "OUTCOME.md")
    _write(page_file, page)
    _write(os.path.join(folder, "recipe.toml"), text)
    _write(os.path.join(folder, "outcome.json"), json.dumps(plain(findings), indent=1))
    click.echo(f"{verdicts}\n\n{page_file}, outcome.json, figures/")
    return 0
