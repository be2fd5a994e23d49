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
    name, text, found = _read(recipe)
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
    study = planned(found, name, size, changes, runs.typed)
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
    """``{name: file}`` of the recipes that come with fedmpi."""
    folder = importlib.resources.files("fedmpi") / "study" / "recipes"
    return {each.name.removesuffix(".toml"): each for each in sorted(folder.iterdir(), key=lambda each: each.name)
            if each.name.endswith(".toml")}


def _listed():
    lines, width = [], terminal_width()
    for name, file in _recipes().items():
        found = runs.toml(file, name)
        lines += wrapped(f"{name}  {found['title']}", width, "    ")
        for size, each in found["size"].items():
            lines += wrapped(f"      {size:<6} {each.get('about', '')}", width, " " * 13)
    last = "fedmpi experiment NAME --size SIZE plays one; --copy mine.toml writes it out for editing"
    return "\n".join([*lines, "", *wrapped(last, width, "  ")])


def _read(recipe):
    """``(name, text, tables)`` of a recipe of ours, or of a file."""
    from fedmpi.study.recipe import check_recipe
    known = _recipes()
    ours = {name.lower(): name for name in known}.get(recipe.lower())
    file = known[ours] if ours else recipe
    if not ours and not recipe.endswith(".toml"):
        raise UserError(f"there is no recipe {recipe}; there are {', '.join(known)}, or name a file that ends on .toml")
    found = runs.toml(file, recipe)
    check_recipe(found, recipe)
    with open(file, encoding="utf-8") as source:
        return ours or os.path.splitext(os.path.basename(recipe))[0], source.read(), found


def _write(path, text, mode="w"):
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists already") from None


def _changes(data_dir, files):
    """A function from a run's options to those that the command line changes, and the names of data sets that no run
    has asked it for so far."""
    swaps = {}
    for each in files:
        name, equals, file = each.partition("=")
        if not equals or not os.path.isfile(file):
            raise UserError(f"--data {each}: say NAME=FILE.h5, with a file that exists")
        swaps[name] = file
    fixed, unused = {"data_dir": data_dir} if data_dir else {}, list(swaps)

    def changes(given):
        name = given.get("dataset", DEFAULTS["dataset"])
        if name in unused:
            unused.remove(name)
        return fixed | ({"dataset": swaps[name]} if name in swaps else {})

    return changes, unused


def _with_known(study, folder, overwrite):
    """``(study, anew)``: the study with the names that its runs have in the folder already, and the names of those that
    are to be played anew. UserError where a name is another run's, which ``overwrite`` does not give up: a recipe may
    be changed between calls."""
    from fedmpi.study import sweep as sweeps
    from fedmpi.study.outcome import states
    from fedmpi.study.recipe import identity
    options = runs.known_options(folder)
    known = {name: _same(each, identity) for name, each in options.items()}
    mine = {name: _same(runs.all_options(each), identity) for name, each in study.options.items()}
    by_identity = {each: name for name, each in known.items()}
    renamed = {name: by_identity.get(each, name) for name, each in mine.items()}
    study = study._replace(runs={key: renamed[name] for key, name in study.runs.items()},
                           options={renamed[name]: each for name, each in study.options.items()})
    points, found = _points(study), []
    for old, (name, (status, rounds, _)) in zip(renamed, states(study, folder).items()):
        same = known.get(name, mine[old]) == mine[old]
        differs = [] if same else sweeps.changed(runs.all_options(study.options[name]), options[name]) or ["this"]
        found.append(sweeps.State(status, rounds, differs))
    return study, sweeps.replaced(folder, points, found, overwrite)


def _points(study):
    from fedmpi.study import sweep as sweeps
    return [sweeps.Point(name, options, runs.all_options(options))
            for name, options in study.options.items()]


def _same(options, identity):
    """What makes a run itself; a data set that is a file by its name, wherever it lies."""
    dataset = options["dataset"]
    return identity(options | {"dataset": os.path.basename(dataset) if dataset.startswith("hdf5:file=") else dataset})


def _freeze(study, folder):
    """Write the options of each run beside where its run file will be; where data lie may have changed."""
    from fedmpi.study import sweep as sweeps
    os.makedirs(folder, exist_ok=True)
    for name, options in study.options.items():
        _write(sweeps.path(folder, name, "toml"),
               "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in options.items()))


def _plan(study, folder, parallel):
    """The runs and how far they are, then the time that is left."""
    from fedmpi.read.report.text import human_seconds
    from fedmpi.study.outcome import seconds_left, states
    found = states(study, folder)
    rows = [(name, status, f"{rounds}/{study.options[name].get('rounds', DEFAULTS['rounds'])}",
             human_seconds(seconds) if rounds else "-") for name, (status, rounds, seconds) in found.items()]
    done = sum(status == "finished" for status, _, _ in found.values())
    left = seconds_left(study, found)
    time = ("unknown until a round is played" if left is None
            else f"about {human_seconds(left / parallel)}, loading not counted")
    width = terminal_width()
    told = [f"{done} of {len(found)} runs done in {folder}; time left with --parallel {parallel}: {time}",
            *(f"not in this study: {line}" for line in study.recipe.get("lacks", []))]
    table = aligned(("run", "status", "rounds", "took"), rows, (0, 1), width)
    return "\n".join([*table, "", *(part for line in told for part in wrapped(line, width, "  "))])


def _todo(study, folder, anew):
    """The names of the runs that are not finished, or are to be played ``anew``, those that have begun first."""
    from fedmpi.study.outcome import states
    found = states(study, folder)
    counts = {}
    for status, _, _ in found.values():
        counts[status] = counts.get(status, 0) + 1
    runs.say(f"{len(found)} runs in {folder}: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    for line in study.recipe.get("lacks", []):
        runs.say(f"not in this study: {line}")
    if anew:
        runs.say(f"to be played anew: {', '.join(anew)}")
    return sorted((name for name in found if found[name][0] != "finished" or name in anew),
                  key=lambda name: found[name][0] == "missing")


def _play(study, folder, names, parallel, start):
    """Play the runs; a line for each. The exit code: of those that ask to be continued, else 1 where any failed."""
    from fedmpi.read.report.text import human_seconds
    from fedmpi.study.outcome import seconds_left, state, states
    from fedmpi.study.play import last_line
    found = states(study, folder)

    def line(name, code, seconds):
        found[name] = state(folder, name)
        if code == stop.COME_BACK:
            return f"{name}: stopped"
        if code:
            return f"{name}: FAILED (exit code {code}): {last_line(folder, name)}"
        left = seconds_left(study, found)
        more = f"; about {human_seconds(left / parallel)} left" if left else ""
        return f"{name}: {human_seconds(seconds)}{more}"

    datasets = {completed(study.options[name])["dataset"] for name in names}
    return runs.play_all(folder, names, start, datasets, parallel, line)


def _array(study, folder, todo, anew, at_once, given, script, submit):
    """The batch script of those that are left."""
    from fedmpi.study import sweep as sweeps
    if not todo:
        return 0
    points = _points(study)
    numbers = [number for number, point in enumerate(points) if point.name in set(todo)]
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
    found, traces = outcome(study, folder)
    shown = outcome_text.terminal(found, terminal_width())
    drawn = figures.draw(study, found, traces, folder)
    _write(os.path.join(folder, "recipe.toml"), text)
    _write(os.path.join(folder, "OUTCOME.md"), outcome_text.markdown(found, drawn))
    for claim in found["claims"]:
        claim["judged"] = [each | {"interval": each["interval"] and each["interval"]._asdict()}
                           for each in claim["judged"]]
    _write(os.path.join(folder, "outcome.json"), json.dumps(plain(found), indent=1))
    click.echo(f"{shown}\n\n{os.path.join(folder, 'OUTCOME.md')}, outcome.json, figures/")
    return 0
