"""``fedmpi experiment``: a whole study from a recipe, its tables, figures and verdicts."""

import importlib.resources
import json
import os

import click

from fedmpi.core import stop
from fedmpi.commands import runs
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS, completed
from fedmpi.core.wide import aligned, terminal_width, wrapped


@click.command()
@click.argument("recipe", required=False, metavar="[NAME|RECIPE.toml]")
@click.option("--size", default="smoke", show_default=True, help="smoke, small, paper, or what the recipe has.")
@click.option("--folder", type=click.Path(file_okay=False),
              help="Where runs and outcome lie.  [default: runs/NAME-SIZE]")
@click.option("--data-dir", help="Where data sets lie.  [default: data]")
@click.option("--data", "files", multiple=True, metavar="NAME=FILE.h5", help="Take that HDF5 file where the recipe "
              "says dataset NAME. May be given several times.")
@click.option("--copy", type=click.Path(dir_okay=False), metavar="FILE.toml",
              help="Write the recipe there, to be edited.")
@click.option("--dry-run", is_flag=True, help="Only list the runs, how far they are, and the time left.")
@click.option("--report", is_flag=True, help="Only make tables and figures of what is there.")
@click.option("--parallel", type=click.IntRange(1), default=1, show_default=True,
              help="Runs at a time on this machine.")
@click.option("--overwrite", is_flag=True, help="Play anew what failed, and what lies under a run's name with other "
              "options. What never had a round is played anew without being asked.")
@click.option("--array", is_flag=True, help="A batch script for a Slurm array of what is not finished, instead.")
@runs.slurm_options
@click.option("--at-once", type=click.IntRange(0), default=0, help="Runs at a time, of the array; 0: all.")
@click.option("--script", type=click.Path(dir_okay=False), help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
def experiment(recipe, size, folder, data_dir, files, copy, dry_run, report, parallel, overwrite, array, at_once,
               script, submit, **given):
    """A whole study: all its runs, those that are finished left out, then tables, figures, and a verdict on each claim.

    Without a name: the recipes there are. The same command goes on where the last one was stopped or killed. On this
    machine each run is one process, or --ranks N under the launcher; --array is for a cluster, and --report,
    afterwards, for what it has played."""
    if not recipe:
        click.echo(_listed())
        return 0
    name, text, tables = _read(recipe)
    if copy:
        _write(copy, text, "x")
        click.echo(copy)
        return 0
    if report + dry_run + array > 1:
        raise UserError("of --report, --dry-run and --array one at a time")
    if not array:
        runs.refuse_slurm("of a batch script, which is --array")
    runs.check_script(script, submit)
    from fedmpi.study import sweep as sweeps
    from fedmpi.study.recipe import study as planned
    changes, unused = _changes(data_dir, files)
    study = planned(tables, name, size, changes, runs.typed)
    if unused:
        raise UserError(f"--data {unused[0]}=...: no run of size {size} in {name} is on a data set called {unused[0]}")
    folder = folder or os.path.join("runs", f"{name}-{size}")
    study, anew = _with_known(study, folder, overwrite)
    if report and overwrite:
        raise UserError("--overwrite has no place beside --report, which plays nothing")
    if dry_run:
        click.echo(_plan(study, folder, parallel))
        return 0
    if report:
        return _report(study, folder, text)
    todo = _todo(study, folder, anew)
    if array:
        return _array(study, folder, todo, anew, at_once, given, script, submit)
    start = runs.start_of_ranks(given)
    runs.check_data([completed(study.options[name]) for name in todo])
    sweeps.clear(folder, anew)
    _freeze(study, folder)
    code = _play(study, folder, todo, parallel, start) if todo else 0
    if code in (stop.COME_BACK, 130):
        return code
    return _report(study, folder, text) or code


def _recipes():
    """``{name: file}`` of fedmpi's own recipes, sorted."""
    folder = importlib.resources.files("fedmpi") / "study" / "recipes"
    recipes = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            recipes[file.name.removesuffix(".toml")] = file
    return recipes


def _listed():
    width = terminal_width()
    lines = []
    for name, file in _recipes().items():
        recipe = runs.toml(file, name)
        lines += wrapped(f"{name}  {recipe['title']}", width, "    ")
        for size, table in recipe["size"].items():
            about = table.get("about", "")
            lines += wrapped(f"      {size:<6} {about}", width, " " * 13)
    last = "fedmpi experiment NAME --size SIZE plays one; --copy mine.toml writes it out for editing"
    return "\n".join([*lines, "", *wrapped(last, width, "  ")])


def _read(recipe):
    """``(name, text, tables)`` of a recipe of ours, or of a file."""
    from fedmpi.study.recipe import check_recipe
    name, file = _place(recipe)
    tables = runs.toml(file, recipe)
    check_recipe(tables, recipe)
    with open(file, encoding="utf-8") as source:
        return name, source.read(), tables


def _place(recipe):
    """``(name, file)`` of a recipe; capitals make no difference in our names."""
    ours = _recipes()
    for name, file in ours.items():
        if name.lower() == recipe.lower():
            return name, file
    if not recipe.endswith(".toml"):
        raise UserError(f"there is no recipe {recipe}; there are {', '.join(ours)}, or name a file that ends on .toml")
    name, _ = os.path.splitext(os.path.basename(recipe))
    return name, recipe


def _write(path, text, mode="w"):
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists already") from None


def _changes(data_dir, files):
    """``(changes, unused)``: a function from a run's options to the ones changed by the command line, and the names of
    data sets still without a run."""
    swaps = {}
    for pair in files:
        name, equals, file = pair.partition("=")
        if not equals or not os.path.isfile(file):
            raise UserError(f"--data {pair}: say NAME=FILE.h5, with a file that exists")
        swaps[name] = file
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
    """``(study, anew)``: the study, its runs named as in the folder, and the names of the runs to play anew.

    A recipe may be changed between calls. UserError if a name in the folder is another run's, without ``overwrite``."""
    from fedmpi.study import sweep as sweeps
    from fedmpi.study.outcome import states
    from fedmpi.study.recipe import identity
    known_options = runs.known_options(folder)
    known = {name: _identity(options, identity) for name, options in known_options.items()}
    own = {name: _identity(runs.all_options(options), identity) for name, options in study.options.items()}
    study = _renamed(study, own, known)
    progress = []
    for own_identity, (name, (status, rounds, _)) in zip(own.values(), states(study, folder).items()):
        changed = []
        if known.get(name, own_identity) != own_identity:
            options = runs.all_options(study.options[name])
            changed = sweeps.changed(options, known_options[name]) or ["this"]
        progress.append(sweeps.State(status, rounds, changed))
    return study, sweeps.replaced(folder, _points(study), progress, overwrite)


def _renamed(study, own, known):
    """The study, with the name of the same run in the folder for each of its runs; ``own`` and ``known`` are
    ``{name: identity}`` of the study and of the folder."""
    by_identity = {identity: name for name, identity in known.items()}
    new_names = {name: by_identity.get(identity, name) for name, identity in own.items()}
    renamed_runs = {}
    for key, name in study.runs.items():
        renamed_runs[key] = new_names[name]
    renamed_options = {}
    for name, options in study.options.items():
        renamed_options[new_names[name]] = options
    return study._replace(runs=renamed_runs, options=renamed_options)


def _points(study):
    from fedmpi.study import sweep as sweeps
    points = []
    for name, options in study.options.items():
        points.append(sweeps.Point(name, options, runs.all_options(options)))
    return points


def _identity(options, identity):
    """The identity of a run. A data set in a file counts by the file's name, in whatever folder it lies."""
    dataset = options["dataset"]
    if dataset.startswith("hdf5:file="):
        dataset = os.path.basename(dataset)
    return identity(options | {"dataset": dataset})


def _freeze(study, folder):
    """Write the options of each run beside its future run file. Data may have moved since the last time."""
    from fedmpi.study import sweep as sweeps
    os.makedirs(folder, exist_ok=True)
    for name, options in study.options.items():
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in options.items()]
        _write(sweeps.path(folder, name, "toml"), "".join(lines))


def _plan(study, folder, parallel):
    """The table of runs and their progress, then the remaining time."""
    from fedmpi.read.report.text import human_seconds
    from fedmpi.study.outcome import seconds_left, states
    progress = states(study, folder)
    rows = []
    for name, (status, rounds, seconds) in progress.items():
        last = study.options[name].get("rounds", DEFAULTS["rounds"])
        taken = human_seconds(seconds) if rounds else "-"
        rows.append((name, status, f"{rounds}/{last}", taken))
    done = sum(status == "finished" for status, _, _ in progress.values())
    left_s = seconds_left(study, progress)
    time = "unknown until a round is played"
    if left_s is not None:
        time = f"about {human_seconds(left_s / parallel)}, loading not counted"
    width = terminal_width()
    lines = [*aligned(("run", "status", "rounds", "took"), rows, (0, 1), width), ""]
    summary = f"{done} of {len(progress)} runs done in {folder}; time left with --parallel {parallel}: {time}"
    for line in (summary, *_lacks(study)):
        lines += wrapped(line, width, "  ")
    return "\n".join(lines)


def _lacks(study):
    """A line for each part of the paper missing in the recipe."""
    return [f"not in this study: {line}" for line in study.recipe.get("lacks", [])]


def _todo(study, folder, anew):
    """The names of the unfinished runs and of the ones to play ``anew``; runs already begun come first."""
    from fedmpi.study.outcome import states
    statuses = {name: status for name, (status, _, _) in states(study, folder).items()}
    listed = list(statuses.values())
    counts = [f"{listed.count(status)} {status}" for status in dict.fromkeys(listed)]
    runs.say(f"{len(listed)} runs in {folder}: {', '.join(counts)}")
    for line in _lacks(study):
        runs.say(line)
    if anew:
        runs.say(f"to be played anew: {', '.join(anew)}")
    todo = [name for name, status in statuses.items() if status != "finished" or name in anew]
    return sorted(todo, key=lambda name: statuses[name] == "missing")


def _play(study, folder, names, parallel, start):
    """Play the runs; a line for each. The exit code: COME_BACK if stopped, else 1 if any failed."""
    from fedmpi.read.report.text import human_seconds
    from fedmpi.study.outcome import seconds_left, state, states
    from fedmpi.study.play import last_line
    progress = states(study, folder)

    def line(name, code, seconds):
        progress[name] = state(folder, name)
        if code == stop.COME_BACK:
            return f"{name}: stopped"
        if code:
            return f"{name}: FAILED (exit code {code}): {last_line(folder, name)}"
        text = f"{name}: {human_seconds(seconds)}"
        left_s = seconds_left(study, progress)
        if left_s:
            text += f"; about {human_seconds(left_s / parallel)} left"
        return text

    datasets = {completed(study.options[name])["dataset"] for name in names}
    return runs.play_all(folder, names, start, datasets, parallel, line)


def _array(study, folder, todo, anew, at_once, given, script, submit):
    """Write the batch script of the runs ``todo``; returns the exit code."""
    from fedmpi.study import sweep as sweeps
    if not todo:
        return 0
    points = _points(study)
    names = set(todo)
    numbers = [number for number, point in enumerate(points) if point.name in names]
    text = runs.array(folder, points, numbers, at_once, given)
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
    results, traces = outcome(study, folder)
    verdicts = outcome_text.terminal(results, terminal_width())
    drawn = figures.draw(study, results, traces, folder)
    page = os.path.join(folder, "OUTCOME.md")
    _write(os.path.join(folder, "recipe.toml"), text)
    _write(page, outcome_text.markdown(results, drawn))
    # JSON knows no named tuples.
    for claim in results["claims"]:
        for judged in claim["judged"]:
            interval = judged["interval"]
            judged["interval"] = interval and interval._asdict()
    _write(os.path.join(folder, "outcome.json"), json.dumps(plain(results), indent=1))
    click.echo(f"{verdicts}\n\n{page}, outcome.json, figures/")
    return 0
