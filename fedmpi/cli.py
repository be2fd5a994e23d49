"""The command line. The only module that imports click; torch and MPI are imported by what a command needs."""

import json
import os
import sys
import time
import traceback

import click

from fedmpi import __version__, stop
from fedmpi.commands import completion
from fedmpi.commands.compare import compare
from fedmpi.commands.experiment import experiment
from fedmpi.commands.export import export
from fedmpi.commands.model import export_model, model
from fedmpi.commands.parts import list_parts
from fedmpi.commands.plot import plot
from fedmpi.commands.report import report as report_command
from fedmpi.commands.runs import (
    arguments as _arguments, array as _array, check_names as _check_names, check_parts as _check_parts,
    check_script as _check_script, deliver as _deliver, say as _say, slurm_options as _slurm_options, toml as _toml,
    typed as _typed, underscored as _underscored)
from fedmpi.commands.schema import schema
from fedmpi.commands.watch import watch
from fedmpi.errors import FedError, UserError
from fedmpi.launcher import rank_and_size
from fedmpi.options import DEFAULTS, PARTS, SEVERAL


def main():
    """The console script: a user's mistake is one line and exit code 2, on every rank alike."""
    sys.path.append(os.getcwd())                             # the user's own modules, beside where they work
    if completion.VARIABLE in os.environ:
        click.echo(completion.answer(cli))
        return
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        _say("interrupted")
        sys.exit(130)
    except click.ClickException as error:
        _say(f"error: {error.format_message()}")
        sys.exit(2)
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except FedError as error:
        _say(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            _say(traceback.format_exc())
            sys.exit(1)
        _say(f"error: {error.filename}: {error.strerror}")
        sys.exit(2)
    except Exception:
        _say(traceback.format_exc())
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli():
    """Federated learning of large sparse models, simulated over MPI.

    \b
    mpirun -n 33 fedmpi train             the main job: 32 clients on 32 worker ranks
    fedmpi train                          the same bits in one process
    fedmpi list pruner                    what can be chosen, with its options
    fedmpi data --partition shards        who would hold which samples, and what is wrong with whom
    fedmpi show RUN.h5                    summary and curves
    """


def _part(kind, text):
    """A click option for one of the catalogue's kinds."""
    return click.option(f"--{kind}", metavar="NAME[:OPTION=VALUE,...]", shell_complete=completion.parts(kind),
                        help=f"{text}; see fedmpi list {kind}.  "
                        f"[default: {PARTS[kind] or 'as the strategy is usually played'}]")


def _parts(name, text):
    """A click option that may be given several times, each a part of the kind."""
    return click.option(f"--{name}", multiple=True, metavar="NAME[:OPTION=VALUE,...]",
                        shell_complete=completion.parts(SEVERAL[name]),
                        help=f"{text}; see fedmpi list {SEVERAL[name]}. May be given several times.")


def _data_options(command):
    """The options that say which data there are and who holds them, on ``command``."""
    for option in reversed((
            _part("dataset", "The data set, or the path of your own HDF5 file"),
            click.option("--data-dir", help="Where data sets lie; fedmpi fetch puts them there.  [default: data]"),
            click.option("--train-samples", type=click.IntRange(0), help="Use that many training samples, drawn by the "
                         "seed; 0: all.  [default: 0]"),
            click.option("--validation", type=click.FloatRange(0, 0.5),
                         help="Share of the training data that the server "
                         "keeps for all that selects.  [default: 0.1]"),
            click.option("--clients", type=click.IntRange(1), help="Clients in all.  [default: 32]"),
            _part("partition", "Who holds which samples"),
            _part("noise", "Which labels are wrong"),
            _part("features", "How inputs differ between clients"),
            _parts("fault", "Clients that duplicate, poison or do not train"),
            click.option("--seed", type=click.IntRange(0), help="Everything random follows from it.  [default: 0]"))):
        command = option(command)
    return command


def _read_config(context, parameter, path):
    """``--config FILE.toml``: the file's keys become defaults, which flags override."""
    if path:
        where = f"--config {path}"
        found = _toml(path, where)
        _check_names(found, DEFAULTS, where)
        _check_types(context, found, where)
        context.meta["config"] = found | {key: [found[key]] for key in SEVERAL if isinstance(found.get(key), str)}
        _set_defaults(context)


def _read_like(context, parameter, path):
    """``--like RUN.h5``: the options of that run become defaults, which those of --config and flags override."""
    if path:
        from fedmpi.store import read_run
        recorded = read_run(path).attrs["options"]
        where = f"--like {path}"
        if unknown := sorted(set(recorded) - set(DEFAULTS)):
            raise UserError(f"{where}: it was written by another version of fedmpi, whose {', '.join(unknown)} this "
                            "one does not know")
        found = {key: value for key, value in recorded.items() if value is not None and key not in ("out", "until")}
        _check_types(context, found, where)
        context.meta["like"] = path, found
        _set_defaults(context)


def _set_defaults(context):
    """Defaults of --like and, before them, of --config, whichever came first."""
    context.default_map = context.meta.get("like", (None, {}))[1] | context.meta.get("config", {})


def _check_types(context, found, where):
    """UserError for values that no flag could have, by type (TOML tells 2 from 2.0 and "2"), then as a flag would."""
    params = {param.name: param for param in context.command.params}
    for key, value in found.items():
        usual, items = DEFAULTS[key], value if key in SEVERAL and isinstance(value, list) else [value]
        kinds = {int: (int,), float: (int, float)}.get(type(usual), (str,))
        name = {int: "a whole number", float: "a number"}.get(
            type(usual), "text" + " or a list of texts" * (key in SEVERAL))
        if any(isinstance(item, bool) or not isinstance(item, kinds) for item in items):
            raise UserError(f"{where}: {key} must be {name}, got {value!r}")
        try:
            params[key].type_cast_value(context, items if key in SEVERAL else value)
        except click.BadParameter as error:
            raise UserError(f"{where}: {key}: {error.message}") from None


def _tell_changes(context, given):
    """One line on what --like changes; a run of the same options would be the same run."""
    path, recorded = context.meta["like"]

    def text(value):
        return (", ".join(value) or "none") if isinstance(value, (list, tuple)) else value

    options = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    changed = [f"{key.replace('_', '-')} {text(options[key])} (was {text(value)})" for key, value in recorded.items()
               if text(options[key]) != text(value)]
    _say(f"like {path}" + (f", but {'; '.join(changed)}" if changed else ", in all options: the same run again"))


@cli.command()
@_data_options
@_part("model", "The network")
@click.option("--cohort", type=click.IntRange(0), help="Clients a round, drawn by --sampler; 0: all.  [default: 0]")
@click.option("--rounds", type=click.IntRange(1), help="Rounds; schedules end here.  [default: 50]")
@click.option("--local-epochs", type=click.IntRange(1), help="Epochs a client trains a round.  [default: 2]")
@click.option("--batch-size", type=click.IntRange(1), help="Samples a step.  [default: 10]")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="The clients' learning rate.  [default: 0.1]")
@click.option("--precision", type=click.Choice(["float32", "bf16"]), help="Of the clients' products and convolutions; "
              "weights and what is sent stay float32. bf16 is faster where the processor or GPU has it.  [default: float32]")
@_part("strategy", "How clients train and the server merges")
@_part("pruner", "Which weights live")
@_part("contribution", "How contributions are scored")
@_part("weighting", "What weight in the merge a score earns")
@_parts("observe", "More estimators of contributions, recorded and not used")
@_part("codec", "Values on the wire")
@_part("devices", "How fast and how often there the clients' devices are, in virtual time")
@_part("sampler", "Who takes part in a round")
@_part("aggregation", "When the server merges, in virtual time")
@click.option("--on-error", type=click.Choice(["fatal", "retry", "drop"]),
              help="What becomes of a client whose training "
              "raises: the run ends, it is tried once more and then left out, or left out.  [default: fatal]")
@click.option("--quorum", type=click.FloatRange(0, 1), help="Least share of a round's answers that must be fit for "
              "merging, diverged and failed ones left out; else the run ends.  [default: 0.5]")
@click.option("--out", type=click.Path(dir_okay=False), help="The run file.  [default: runs/TIME-SEED.h5]")
@click.option("--resume", type=click.Path(dir_okay=False), metavar="RUN.h5", help="Go on with that run, on any number "
              "of ranks.", shell_complete=completion.files(".h5"))
@click.option("--until", type=click.IntRange(0), help="Stop after this round; --resume goes on.  [default: the last]")
@click.option("--evaluate-every", type=click.IntRange(1),
              help="Rounds from one evaluation on the test and validation sets "
              "to the next; the last round always has one.  [default: 1]")
@click.option("--save-every", type=click.IntRange(0), help="Rounds between checkpoints; 0: after each round, but not within "
              "a second of the last one.  [default: 0]")
@click.option("--keep", type=click.IntRange(1), help="Checkpoints kept.  [default: 2]")
@click.option("--silence", type=click.FloatRange(0), help="Seconds without a sign of life after which a rank counts as "
              "lost and the run ends; 0: never.  [default: 60]")
@click.option("--task-limit", type=click.FloatRange(0), help="Seconds after which a rank that is still at one client "
              "counts as hung and the run ends, alive or not; 0: never.  [default: 0]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where clients train.  [default: auto]")
@click.option("--server-device", type=click.Choice(["auto", "cpu", "cuda"]),
              help="Where rank 0 evaluates; auto: on a GPU "
              "where clients train on one, which it shares with them. Evaluations on CPU and GPU differ in bits.  "
              "[default: auto]")
@click.option("--together", type=click.IntRange(0), help="Clients that a worker trains at once, as one wide network; "
              "their results differ from one by one by rounding. 0: the fastest, by a short timing here.  [default: 1]")
@click.option("--config", type=click.Path(), is_eager=True, expose_value=False, callback=_read_config,
              metavar="FILE.toml", help="Options from a file; flags win.", shell_complete=completion.files(".toml"))
@click.option("--like", type=click.Path(), is_eager=True, expose_value=False, callback=_read_like, metavar="RUN.h5",
              help="Options of an earlier run; those of --config and flags win.",
              shell_complete=completion.files(".h5"))
@click.option("--dry-run", is_flag=True, help="Print the plan by playing a little of it: bytes, memory, FLOPs, time; "
              "train nothing, write nothing.")
def train(resume, dry_run, **given):
    """Train; one HDF5 run file comes out. Under mpirun rank 0 is the server, the others train clients."""
    from fedmpi.launch import train as play
    _check_parts(given)
    context = click.get_current_context()
    if "like" in context.meta:
        if resume:
            raise UserError("--like has no place beside --resume: a run that goes on keeps its options")
        _tell_changes(context, given)
    if dry_run:
        return _planned(given, resume)
    if resume:
        if context.get_parameter_source("out") == click.core.ParameterSource.COMMANDLINE:
            raise UserError("--out has no place beside --resume: the run goes on in its own file")
        return play(given, resume, _say)
    options = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    if options["out"] is None:
        options["out"] = _run_file(options["seed"])
    return play(options, None, _say)


def _planned(given, resume):
    """Print what the run would take. Ranks other than 0 have nothing to do; MPI is not touched."""
    rank, size = rank_and_size()
    if resume:
        raise UserError("--dry-run has no place beside --resume: fedmpi show RUN.h5 tells how long its rounds took")
    if rank:
        return 0
    from fedmpi import assemble, plan
    options = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    out = options["out"] or _run_file(options["seed"])
    if os.path.exists(out):
        raise UserError(f"--out {out} exists already; --resume goes on with it, another name makes another run")
    options, data, fed, found = plan.played(options, _say)
    for line in plan.told(options, data, fed, found, size or 1, out):
        click.echo(line)
    for line in assemble.warnings(options, data, fed):
        click.echo(f"warning: {line}")
    return 0


def _run_file(seed):
    """The name of a run file that nobody named."""
    return os.path.join("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}.h5")


@cli.command(params=[option for option in train.params if option.name not in ("resume", "dry_run")])
@_slurm_options
@click.option("--measure", is_flag=True, help="Play a little of it here first, as train --dry-run does, for time and "
              "memory; imports torch.")
@click.option("--script", type=click.Path(dir_okay=False), help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
def sbatch(measure, script, submit, **given):
    """A batch script for Slurm that trains with these options, stops in time, queues itself again and goes on.

    The data's --partition is not the cluster's: that is --queue."""
    from fedmpi import sbatch as slurm
    _check_script(script, submit)
    job = slurm.Job(**{name: given.pop(name) for name in slurm.Job._fields})
    given["out"] = given["out"] or _run_file(given["seed"] or 0)
    arguments = _arguments(given)
    _check_parts(given)
    options = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    job = job._replace(ranks=job.ranks or slurm.cohort(options) + 1)
    slurm.check(job, options)
    measured = _measured(options) if measure else None
    slurm.check(job, options, measured)
    for line in slurm.told(job, options, measured):
        _say(line)
    text = slurm.script(job, options, arguments, sys.argv[1:], measured)
    _deliver(text, script, submit)


def _read_sweep(context, parameter, path):
    """``GRID.toml`` as tables; what its [slurm] says become defaults, which flags override."""
    from fedmpi import sbatch, sweep as sweeps
    found = _toml(path, path)
    sweeps.check_tables(found, path)
    found = {name: _underscored(table) if isinstance(table, dict) else table for name, table in found.items()}
    known = [name for name in DEFAULTS if name not in ("out", "until")]
    for name, table in [("[fixed]", found.get("fixed", {})), ("[grid]", found.get("grid", {}))] + [
            ("[[run]]", _underscored(each)) for each in found.get("run", [])]:
        _check_names(table, known, f"{path}: {name}")
    _check_names(found.get("slurm", {}), [*sbatch.Job._fields, "at_once"], f"{path}: [slurm]")
    context.default_map = found.get("slurm", {})
    return found | {"path": path}


@cli.command()
@click.argument("grid", metavar="GRID.toml", is_eager=True, callback=_read_sweep,
                shell_complete=completion.files(".toml"))
@_slurm_options
@click.option("--at-once", type=click.IntRange(0), default=0, help="Runs at a time, of an array job; 0: all.")
@click.option("--script", type=click.Path(dir_okay=False), help="Where the script goes.  [default: standard output]")
@click.option("--submit", is_flag=True, help="Submit it, too.")
@click.option("--here", is_flag=True, help="Play the runs one after the other on this machine, on --ranks N.")
@click.option("--dry-run", is_flag=True, help="Only list the runs and how far they are.")
def sweep(grid, at_once, script, submit, here, dry_run, **given):
    """Many runs from one file: a batch script for an array job of those that are not finished yet, or --here.

    \b
    folder = "runs/noise"                  # where runs lie, and the options of each
    [fixed]                                # options of train
    rounds = 20
    [grid]                                 # every combination is a run
    strategy = ["fedavg", "thesis"]
    seed = [0, 1, 2]
    [[run]]                                # one more run
    strategy = "fltrust"
    [slurm]                                # options of this command
    time = "00:30:00"
    """
    from fedmpi import sbatch as slurm
    from fedmpi import sweep as sweeps
    _check_script(script, submit)
    if here and (script or dry_run):
        raise UserError("--here has no place beside --script or --dry-run")
    folder = grid.get("folder") or os.path.join("runs", os.path.splitext(os.path.basename(grid["path"]))[0])
    points = _points(grid, folder)
    states = [sweeps.state(folder, point) for point in points]
    todo = [number for number, (status, _) in enumerate(states) if status != "finished"]
    if dry_run:
        click.echo(_listed(points, states))
    counts = [f"{sum(status == each for status, _ in states)} {each}" for each in dict.fromkeys(s for s, _ in states)]
    _say(f"{len(points)} run{'s' * (len(points) > 1)} in {folder}: {', '.join(counts)}")
    if dry_run or not todo:
        return 0
    ranks = click.get_current_context().get_parameter_source("ranks") == click.core.ParameterSource.COMMANDLINE
    if here:
        slurm.program(given["launcher"])
        sweeps.freeze(folder, points)
        return _played_here(folder, [points[number].name for number in todo], given, given["ranks"] if ranks else 1)
    if any(status == "running" for status, _ in states):
        _say("warning: what is running is in the script too: start it when no job plays these runs any more")
    text = _array(folder, points, todo, at_once, given)
    sweeps.freeze(folder, points)
    _deliver(text, script, submit)


def _points(grid, folder):
    """The runs of a sweep, checked as train would check them."""
    from fedmpi import sweep as sweeps
    where = grid["path"]
    raw = sweeps.combined(grid.get("fixed", {}), grid.get("grid", {}),
                          [_underscored(run) for run in grid.get("run", [])])
    given = [_typed(each, f"{where}: run {number}") for number, each in enumerate(raw)]
    known = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.endswith(".toml"):
            file = os.path.join(folder, name)
            known[name.removesuffix(".toml")] = DEFAULTS | _typed(_toml(file, file), file)
    points = sweeps.named(given, [DEFAULTS | each for each in given], known, where)
    sweeps.check_known(points, known, folder)
    return points


def _listed(points, states):
    """A line a run: its number, name, how far it is."""
    from fedmpi.report.text import aligned
    rows = [(str(number), point.name, status, f"{rounds}/{point.options['rounds']}")
            for number, (point, (status, rounds)) in enumerate(zip(points, states))]
    return "\n".join(aligned(("run", "name", "status", "rounds"), rows, left=(1, 2)))


def _played_here(folder, names, given, ranks):
    """Play the runs one after the other; the exit code of one that was asked to stop, else 1 where any failed."""
    import shlex

    from fedmpi import sweep as sweeps
    start = [*shlex.split(given["launcher"]), "-n", str(ranks)] if ranks > 1 else []
    failed = []
    for number, name in enumerate(names, 1):
        _say(f"\n{name}, {number} of {len(names)}")
        code = sweeps.play([*start, sys.executable, "-m", "fedmpi", "train", *sweeps.train_arguments(folder, name)])
        if code in (stop.COME_BACK, 130):
            _say("stopped; the same command goes on")
            return code
        failed += [f"{name} (exit code {code})"] * (code != 0)
    _say(f"\n{len(names) - len(failed)} of {len(names)} played" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _measured(options):
    """What a round takes, by a short run in this process."""
    from fedmpi import plan, sbatch as slurm
    found = plan.played(options, _say)[-1]
    return slurm.Measured(found.round_s, found.shared_s, found.rank_bytes)


@cli.command()
@_data_options
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Also write a heat map as .png, .svg or .pdf.")
def data(as_json, picture, **given):
    """Who holds which samples, before any training: a line a client, how far labels are skewed, what is wrong with
    whom. The same options and seed give train the same data."""
    if rank_and_size()[0]:
        return
    _check_parts(given)
    from fedmpi import report
    if picture:
        report.picture_kind(picture)
    from fedmpi import assemble
    options = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    dealt = assemble.federation(options)
    found = report.described(dealt, assemble.population(dealt, options), options)
    if picture:
        report.save_partition(found, picture)
    if as_json:
        click.echo(json.dumps(report.plain(found)))
    else:
        click.echo(report.partition_text(found) + "\n\n" + report.partition_picture(found))
        if picture:
            click.echo(f"\npicture: {picture}")


cli.add_command(list_parts)
cli.add_command(completion.completion)


@cli.command()
@click.argument("run", type=click.Path(dir_okay=False), shell_complete=completion.files(".h5"))
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Write the picture as .png, .svg or .pdf instead.")
@click.option("--profile", is_flag=True, help="Where the time of the rounds went instead; --json always has it.")
def show(run, as_json, picture, profile):
    """Summary and curves of a run, also while it goes on; fedmpi watch follows it."""
    if profile and picture:
        raise UserError("--profile has no place beside --picture")
    from fedmpi import report
    from fedmpi.store import read_run
    found = read_run(run)
    if picture:
        report.save_picture(found, picture)
        click.echo(picture)
    elif as_json:
        click.echo(json.dumps(report.to_json(found)))
    elif profile:
        click.echo(report.profile_text(found))
    else:
        click.echo(report.summary(found) + "\n\n" + report.picture(found, colour=sys.stdout.isatty()))


@cli.command()
@click.argument("places", nargs=-1, required=True, metavar="FOLDER_OR_RUN...", shell_complete=completion.files(".h5"))
@click.option("--out", type=click.Path(dir_okay=False), metavar="TABLE.csv",
              help="The runs as CSV; means over seeds in "
              "TABLE-seeds.csv.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def merge(places, out, as_json):
    """The outcomes of many runs in one table, and their mean and spread over seeds."""
    from fedmpi import report
    from fedmpi.store import read_run
    runs, unread = {}, []
    for path in _run_paths(places):
        try:
            runs[path] = read_run(path)
        except FedError as error:
            unread.append(str(error))
    for line in unread:
        _say(f"left out: {line}")
    if not runs:
        raise UserError(f"no run file in {', '.join(places)}")
    varying, rows = report.outcomes(runs)
    groups = report.over_seeds(varying, rows)
    if out:
        _write_csv(out, rows)
        _write_csv("{}-seeds{}".format(*os.path.splitext(out)), groups)
    if as_json:
        click.echo(json.dumps(report.plain({"runs": rows, "over_seeds": groups, "left_out": unread})))
    else:
        click.echo(report.outcomes_text(varying, rows))
    return 1 if unread else 0


def _run_paths(places):
    """The files that are named, and those ending on .h5 of the folders that are, each once."""
    found = [path for place in places for path in (
        [os.path.join(place, name) for name in sorted(os.listdir(place)) if name.endswith(".h5")]
        if os.path.isdir(place) else [place])]
    return list(dict.fromkeys(found))


def _write_csv(path, rows):
    """A table whose columns are those of the first row; empty where there is no value."""
    import csv
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


@cli.command()
@click.argument("a", type=click.Path(dir_okay=False), shell_complete=completion.files(".h5"))
@click.argument("b", type=click.Path(dir_okay=False), shell_complete=completion.files(".h5"))
def verify(a, b):
    """Whether runs A and B agree in every bit that does not depend on the machine; exit code 1 where they differ."""
    from fedmpi.store import verify as compare
    lines = compare(a, b)
    click.echo("\n".join(lines) if lines else "the runs agree in every recorded number that is not a time")
    return 1 if lines else 0


@cli.command()
@click.argument("name")
@click.option("--data-dir", default="data", show_default=True, help="Where to put it.")
def fetch(name, data_dir):
    """Download the data set NAME, or unpack it where its archives already lie in the folder. Once, never by
    training."""
    from fedmpi.data.fetch import fetch as download
    if rank_and_size()[0] == 0:
        download(name, data_dir)
        click.echo(f"{name} is in {data_dir}")


@cli.command()
@click.option("--out", default="runs", show_default=True, type=click.Path(file_okay=False),
              help="Where run files will lie.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def doctor(out, as_json):
    """Check this machine, or under mpirun all ranks of a job: MPI, cores, GPUs, torch, speed between ranks, files,
    room.

    \b
    mpirun -n 33 fedmpi doctor --out runs

    Exit code 0: nothing worse than a note; 1: warnings, it will run, though not as it could; 2: errors, it will not."""
    from fedmpi import doctor as judge
    from fedmpi.examine import examine

    def show(facts, findings):
        click.echo(json.dumps(judge.as_json(facts, findings)) if as_json else judge.text(findings))

    return examine(out, show, _say)


cli.add_command(compare)
cli.add_command(experiment)
cli.add_command(export)
cli.add_command(export_model)
cli.add_command(model)
cli.add_command(plot)
cli.add_command(report_command)
cli.add_command(schema)
cli.add_command(watch)


@cli.group()
def bench():
    """Measure, side by side with a reference in the same run."""


def _bench_round(name, text):
    """``fedmpi bench NAME``: one of the works of bench.round."""
    @bench.command(name, help=text)
    @click.option("--data-dir", default="data", show_default=True, help="With Fashion-MNIST in it; else synthetic images.")
    @click.option("--samples", type=click.IntRange(0), default=0, help="Training samples.  [default: 60000]")
    @click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
    def command(data_dir, samples, repeats):
        from fedmpi.bench.round import measure
        return measure(name, data_dir, samples, repeats, _say)


_bench_round("cross-silo", "A round of 32 clients with a CNN of 582,026 weights, dense, in bf16, and by the thesis's algorithm "
             "at sparsity 0.9, against plain PyTorch loops of the dense steps on the same ranks: mpirun -n 3 fedmpi bench "
             "cross-silo.")
_bench_round("cross-device", "The same network, 50 of 1000 clients a round with 60 images each: mpirun -n 3 fedmpi bench "
             "cross-device.")
_bench_round("tiny", "Logistic regression, 10 of 1000 clients a round, in one process: fedmpi bench tiny.")


@bench.command("shapley")
@click.option("--data-dir", default="data", show_default=True, help="With Fashion-MNIST in it; else synthetic images.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True,
              help="Rounds that GTG-Shapley observes.")
def bench_shapley(data_dir, repeats, rounds):
    """Exact Shapley values of 10 clients (1024 coalitions, LeNet-5, 1000 samples) on all workers, on one, and by a loop
    over state dicts; and GTG-Shapley beside them: mpirun -n 3 fedmpi bench shapley."""
    from fedmpi.bench.shapley import measure
    return measure(data_dir, repeats, rounds, _say)


@bench.command("wire")
@click.option("--weights", type=click.IntRange(10000), default=11_000_000, show_default=True, help="Of the model.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def bench_wire(weights, repeats):
    """Bytes and speed of masks and values on one core, against the bound of information and other libraries, and the
    steps of a sparse model on its way against a dense one's."""
    from fedmpi.bench.wire import measure
    return measure(weights, repeats, _say)


@bench.command("together")
@click.option("--together", type=click.IntRange(1), multiple=True, default=(1, 8, 25, 50), show_default=True,
              help="Clients that a worker trains at once. May be given several times.")
@click.option("--users", type=click.IntRange(1), default=1000, show_default=True, help="Clients in all.")
@click.option("--samples", type=click.IntRange(1), default=50, show_default=True, help="Training samples of each.")
@click.option("--cohort", type=click.IntRange(1), default=50, show_default=True, help="Clients a round.")
@click.option("--batch-size", type=click.IntRange(1), default=10, show_default=True)
@click.option("--model", default="pfl-cnn", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--data-dir", default="data", show_default=True, help="With CIFAR-10 in it; else synthetic images.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def bench_together(together, **given):
    """Rounds a second of pfl-research's CIFAR-10 set-up with several clients trained at once, against a plain loop. In
    under a minute on a CPU: fedmpi bench together --users 100 --cohort 10 --samples 20 --repeats 1."""
    from fedmpi.bench.together import measure
    return measure(together, say=_say, **given)


@bench.command("server")
@click.option("--folder", default=None, type=click.Path(file_okay=False, exists=True), help="Where to write; else a temporary one.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def bench_server(folder, repeats):
    """What rank 0 does in a round, each step beside a reference: merging and scoring 32 clients of 1,100,000 values,
    pruning and growing 11 million weights, rows, checkpoints, and cohorts of 1000. In one process."""
    from fedmpi.bench.server import measure
    return measure(folder, repeats, _say)


@bench.command("start")
@click.option("--ranks", type=click.IntRange(2), default=3, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def bench_start(ranks, repeats):
    """Seconds from the command to the first round, against as many ranks that import torch and read the data. Starts both
    itself: fedmpi bench start, without mpirun."""
    from fedmpi.bench.start import measure
    return measure(ranks, repeats, _say)


@bench.command("transport")
@click.option("--weights", type=click.IntRange(10000), default=11_000_000, show_default=True, help="Of the model.")
@click.option("--replies", type=click.IntRange(1), default=5000, show_default=True, help="Small jobs that are answered.")
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True)
def bench_transport(weights, replies, repeats):
    """A sparse model to a worker, a message to all, small replies a second and what ranks burn that wait, beside MPI
    alone: mpirun -n 3 fedmpi bench transport, and -n 33."""
    from fedmpi.bench.transport import measure
    return measure(weights, replies, repeats, _say)


@bench.command("crowd")
@click.option("--ranks", type=click.IntRange(2), default=33, show_default=True)
@click.option("--data-dir", default="data", show_default=True, help="With Fashion-MNIST in it; else synthetic images.")
@click.option("--samples", type=click.IntRange(0), default=0, help="Training samples.  [default: 60000]")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="That are timed, after one that is not.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def bench_crowd(ranks, data_dir, samples, rounds, repeats):
    """Seconds a round of the cross-silo work on many ranks against 3. Starts both itself: fedmpi bench crowd, without
    mpirun."""
    from fedmpi.bench.crowd import measure
    return measure(ranks, data_dir, samples, rounds, repeats, _say)


@bench.command("memory")
@click.option("--model", default="cnn", show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=500, show_default=True)
@click.option("--limit", type=click.IntRange(0), default=2048, show_default=True,
              help="KB by which a worker may grow after a tenth of the rounds; more is exit code 1.")
def bench_memory(model, rounds, limit):
    """What the resident memory of ranks that train consists of, and how much it grows over 500 rounds: mpirun -n 3 fedmpi
    bench memory."""
    from fedmpi.bench.memory import measure
    return measure(model, rounds, limit, _say)
