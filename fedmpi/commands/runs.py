"""Shared by the commands starting runs: options from files, checked by train's own checks; batch
scripts."""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter

import click

from fedmpi import catalog
from fedmpi.build.options import DEFAULTS, KIND_OF, PARTS, SEVERAL, opened
from fedmpi.commands.say import say
from fedmpi.core import former, stop
from fedmpi.core.errors import FedError, UserError
from fedmpi.core.words import plural
from fedmpi.plugins.spec import make, parse, quoted, split
from fedmpi.run.launcher import launcher_path


def toml(path, where):
    """The tables of a TOML file, with keys as in code: ``local_epochs``."""
    # Part of Python since 3.11.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return underscored(tomllib.load(file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{where}: {error}") from error


def underscored(table):
    """The table with keys as in code. UserError for a key in both spellings.

    A former name becomes the name of today, and a line says so.
    """
    options = {}
    # {the other spelling: name}
    twice = {}
    for key, value in table.items():
        name = present_name(key.replace("-", "_"))
        if name != key and name in table:
            twice[key] = name
        options[name] = value
    if twice:
        first, *others = sorted(twice)
        listed = ", ".join([first, *others])
        raise UserError(f"{listed} and {twice[first]} are the same option, given twice")
    return options


def present_name(option):
    """The option's name of today; a line tells the user of a former name."""
    if option not in former.OPTIONS:
        return option
    present = former.OPTIONS[option]
    say(f"{flag_of(option)} is called {flag_of(present)} now; it has the same values")
    return present


def flag_of(name):
    """``--local-epochs`` of ``local_epochs``."""
    words = name.replace("_", "-")
    return f"--{words}"


def check_parts(options):
    """Bring the options, in place, into the run file's form. UserError for unknown parts and
    infinite numbers."""
    _check_numbers(options)
    if options["dataset"]:
        options["dataset"] = dataset_spec(options["dataset"])
    for option in PARTS:
        if options.get(option):
            kind = KIND_OF.get(option, option)
            parse(catalog.KINDS[kind], options[option])
    for option in SEVERAL.keys() & options.keys():
        specs = list(options[option])
        kind = SEVERAL[option]
        for spec in specs:
            parse(catalog.KINDS[kind], spec)
        options[option] = specs or None


def _check_numbers(options):
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{flag_of(name)} must be a finite number, got {value}")
    silence_s = options.get("silence") or 0
    if 0 < silence_s < 1:
        raise UserError(f"--silence must be 0 (never) or 1 second at least, got {silence_s:g}")


# Such names are files of data even if no file exists; other names only if one does.
DATA_FILES = (
    ".h5", ".hdf5", ".he5", ".hdf", ".nc", ".mat",
    ".npz", ".npy", ".csv", ".parquet", ".pt", ".pkl")
FILE_AND_OPTIONS = re.compile(
    r"(?P<path>.*?)(?::(?P<options>\w+=[^,]*(?:,\w+=[^,]*)*))?", re.DOTALL)


def dataset_spec(text):
    """``text`` as the catalogue's spec of a data set: a file's path, with or without options behind
    a colon, becomes an option of hdf5. A name of the catalogue is never a path."""
    match = FILE_AND_OPTIONS.fullmatch(text)
    name, _ = split(text)
    if name in catalog.DATASETS or match is None:
        return text
    path = match["path"]
    is_file = path.lower().endswith(DATA_FILES) or os.path.exists(path)
    if not is_file:
        return text
    # A run may be resumed from another folder.
    whole_path = os.path.abspath(path)
    spec = f"hdf5:file={quoted(whole_path)}"
    if match["options"]:
        spec += f",{match['options']}"
    return spec


SLURM_OPTIONS = (
    click.option(
        "--nodes", type=click.IntRange(1), default=1, show_default=True, help="Nodes."),
    click.option(
        "--ranks", type=click.IntRange(1),
        help="Ranks in all.  [default: a worker a client, and the server]"),
    click.option(
        "--gpus", type=click.IntRange(0), default=0, show_default=True, help="GPUs a node."),
    click.option(
        "--memory", default="",
        help="Memory a node, such as 8G; 0: all.  [default: as estimated]"),
    click.option(
        "--time", default="01:00:00", show_default=True, help="Wall time of one start."),
    click.option("--account", help="Who pays."),
    click.option("--queue", help="The cluster's partition."),
    click.option("--modules", help="What module load is to load, such as 'python mpich'."),
    click.option("--venv", help="The virtual environment to activate."),
    click.option("--conda", help="The conda environment to activate."),
    click.option("--container", help="The image that apptainer runs fedmpi in."),
    click.option(
        "--launcher", default="mpirun", show_default=True,
        help="mpirun or srun, with options: 'srun --mpi=pmix'."),
    click.option(
        "--signal", default=stop.USUAL, show_default=True,
        help="What asks it to stop, seconds before the end."),
    click.option(
        "--requeues", type=click.IntRange(0), default=10, show_default=True,
        help="Times that it comes back."),
    click.option(
        "--job-name",
        help="The job's name.  [default: fedmpi, of many runs fedmpi-sweep]"),
    click.option("--qos", help="Quality of service."),
    click.option("--constraint", help="Features that nodes must have, such as 'a100&nvme'."),
    click.option(
        "--mail-user", metavar="ADDRESS", help="Who gets mail.  [default: who submits]"),
    click.option(
        "--mail-type", metavar="TYPE,...", help="When mail is sent, such as END,FAIL."),
    click.option(
        "--log", metavar="PATH",
        help="Where the output goes; %j is the job's number, %a the run's in an array.  "
             "[default: slurm-%j.out]"),
    click.option(
        "--cpus-per-task", type=click.IntRange(1), default=1, show_default=True,
        help="CPUs a rank, which trains on one thread."),
    click.option(
        "--sbatch", multiple=True, metavar="NAME[=VALUE]",
        help="Any other option of sbatch, such as reservation=me or exclusive. May be given "
             "several times."),
)


def slurm_options(command):
    """The options of a cluster's job, on ``command``."""
    # Click lists the option first that was added last.
    for option in reversed(SLURM_OPTIONS):
        command = option(command)
    return command


def on_command_line(name):
    """Whether the option ``name`` of this command was given, not taken from a default or a file."""
    context = click.get_current_context()
    source = context.get_parameter_source(name)
    return source == click.core.ParameterSource.COMMANDLINE


def refuse_slurm(why):
    """UserError, with the reason ``why``, if an option only for batch scripts was given."""
    from fedmpi.cluster.sbatch import Job
    flags = []
    for name in (*Job._fields, "at_once", "script", "submit"):
        # These two also start a run on this machine.
        if name not in ("ranks", "launcher") and on_command_line(name):
            flags.append(flag_of(name))
    if flags:
        listed = ", ".join(flags)
        raise UserError(f"{listed}: {why}")


def start_of_ranks(job_options):
    """The words before a run's command to start the ranks asked for on the command line; empty for
    one rank."""
    from fedmpi.cluster.sbatch import program
    program(job_options["launcher"])
    if not on_command_line("ranks") or job_options["ranks"] == 1:
        if on_command_line("launcher"):
            raise UserError(
                "--launcher has no effect in one process: it starts the ranks of --ranks N")
        return []
    name, *more = shlex.split(job_options["launcher"])
    return [launcher_path(name), *more, "-n", str(job_options["ranks"])]


def check_script(script, submit):
    """UserError, before any work, if --script and --submit cannot be followed."""
    if script and os.path.exists(script):
        raise UserError(f"--script {script} exists already")
    if submit and not script:
        raise UserError("--submit needs --script FILE")
    if submit and not shutil.which("sbatch"):
        raise UserError(
            "--submit needs Slurm's sbatch, which is not in PATH here: leave it out, and take the "
            "script to where it is")


def deliver(text, script, submit):
    """A batch script to the terminal, or into its file and to Slurm. A file refused by Slurm is
    removed."""
    if not script:
        click.echo(text, nl=False)
        return
    with open(script, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    if not submit:
        return
    done = subprocess.run(["sbatch", script], check=False)
    if done.returncode:
        # It would be in the way of the next try, and this command can write it again.
        os.remove(script)
        raise FedError(
            f"sbatch refused the script (exit code {done.returncode}, see above), and {script} is "
            "removed: nothing is queued, the same command may try again")


def typed(options, where):
    """The given options of one run, as by the command line of train. UserError for a wrong one,
    naming its place ``where``."""
    for key, value in options.items():
        types = (str, int, float)
        if key in SEVERAL:
            types = (*types, list)
        # A bool is an int for Python.
        if isinstance(value, bool) or not isinstance(value, types):
            raise UserError(f"{where}: {key} cannot be {value!r}")
    try:
        # Train's own flags check the values.
        params = _train().make_context("train", arguments(options)).params
        check_parts(params)
    except click.UsageError as error:
        raise UserError(f"{where}: {error.format_message()}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    checked = {}
    for key, value in params.items():
        # Without train's other options, such as --dry-run.
        if key in DEFAULTS and value is not None:
            checked[key] = value
    return checked


def all_options(options):
    """All options of a run, of which these are given; some follow from the user's own file of
    data, and are read there."""
    from fedmpi.build.natural import settled_by_file
    return settled_by_file(opened(options))


def known_options(folder):
    """``{name: options}`` of the runs with a file of their options in the folder."""
    if not os.path.isdir(folder):
        return {}
    options = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".toml"):
            continue
        path = os.path.join(folder, name)
        content = toml(path, path)
        # A recipe or a grid has tables.
        has_tables = any(isinstance(value, dict) for value in content.values())
        if has_tables:
            continue
        written = typed(content, path)
        options[name.removesuffix(".toml")] = all_options(written)
    return options


def counted(statuses):
    """``3 finished, 1 missing``."""
    counts = Counter(statuses)
    return ", ".join(f"{num} {status}" for status, num in counts.items())


def array(folder, points, todo, at_once, job_options):
    """The batch script for the runs ``todo``, with room for the largest; says its demands."""
    from fedmpi.build.ranks import wanted
    from fedmpi.cluster import sbatch as slurm
    from fedmpi.cluster.foretell import foretold
    from fedmpi.cluster.script import array_script
    out = os.path.join(folder, "NAME.h5")
    options = [points[number].options | {"out": out} for number in todo]
    job = slurm.Job(**job_options)
    if not job.ranks:
        # A worker a client of the largest cohort, or several, and the server.
        ranks = [wanted(slurm.cohort(own), own["ranks_per_client"]) for own in options]
        job = job._replace(ranks=max(ranks))
    slurm.check_log_of_array(job.log)
    for own in options:
        slurm.check(job, own)
    # Every task of an array asks for the same memory.
    largest = max(options, key=lambda own: slurm.node_bytes(job, own))
    at_a_time = f", {at_once} at a time" if at_once > 0 else ""
    say(f"an array job of {plural(len(todo), 'run')}{at_a_time}; each:")
    for line in foretold(job, largest):
        say(line)
    names = [point.name for point in points]
    num_bytes = slurm.node_bytes(job, largest)
    return array_script(job, num_bytes, names, todo, at_once, folder, sys.argv[1:])


def check_data(options):
    """Read every data set of these runs once, before hours of work. DataError for a missing or
    broken one."""
    places = set()
    for own in options:
        places.add((own["dataset"], own["data_dir"]))
    for dataset, folder in sorted(places):
        make(catalog.DATASETS, dataset, folder)


def play_all(folder, names, start, datasets, parallel, line):
    """Play the runs of these names, ``parallel`` at a time, with ``start`` before each command;
    says ``line(name, code, seconds)`` for each ended run.

    The exit code: COME_BACK if stopped, else 1 if any failed."""
    from fedmpi.study.play import play
    done = []

    def ended(name, code, seconds):
        done.append(name)
        text = line(name, code, seconds)
        say(f"{len(done)}/{len(names)} {text}")

    def waits(names):
        say(f"waiting for {len(names)} runs that another process plays, such as {names[0]}: one "
            "that was killed has left them, or plays them now")

    codes, stopped = play(folder, names, start, datasets, parallel, ended, waits)
    if stopped:
        say("stopped; the same command goes on")
        return stop.COME_BACK
    return int(any(codes.values()))


def arguments(options):
    """Options as the command line of train, without the run file."""
    words = []
    for key, value in options.items():
        if key == "out" or value is None:
            continue
        # An option of several parts is given again for each.
        values = value if isinstance(value, (tuple, list)) else [value]
        for item in values:
            words += [flag_of(key), str(item)]
    return words


def _train():
    """The command ``train``, the owner of these options."""
    # Not imported: its module imports this one.
    root = click.get_current_context().find_root()
    return root.command.commands["train"]
