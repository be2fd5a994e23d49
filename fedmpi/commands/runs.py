"""What commands that start runs share: options from files, checked as train checks them; batch scripts."""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys

import click

from fedmpi import catalog
from fedmpi.plugins.spec import make, parse, quoted, split
from fedmpi.core import stop
from fedmpi.commands.say import say
from fedmpi.core.errors import FedError, UserError
from fedmpi.run.launcher import launcher_path
from fedmpi.build.options import DEFAULTS, KIND_OF, PARTS, SEVERAL, opened


def toml(path, where):
    """What the TOML file says, its keys as the options are called in code."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return underscored(tomllib.load(file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{where}: {error}") from error


def underscored(found):
    twice = sorted(key for key in found if "-" in key and key.replace("-", "_") in found)
    if twice:
        raise UserError(f"{', '.join(twice)} and {twice[0].replace('-', '_')} are the same option, given twice")
    return {key.replace("-", "_"): value for key, value in found.items()}


def check_parts(given):
    """Make of the options what the run file records, and refuse what the catalogue does not know, or is no number."""
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name.replace('_', '-')} must be a finite number, got {value}")
    if 0 < (given.get("silence") or 0) < 1:
        raise UserError(f"--silence must be 0 (never) or 1 second at least, got {given['silence']:g}")
    if given["dataset"]:
        given["dataset"] = dataset_spec(given["dataset"])
    for kind in PARTS:
        if given.get(kind):
            parse(catalog.KINDS[KIND_OF.get(kind, kind)], given[kind])
    for name in SEVERAL.keys() & given.keys():
        given[name] = list(given[name]) or None
        for spec in given[name] or ():
            parse(catalog.KINDS[SEVERAL[name]], spec)


# Names that end so are files of data, be they there or not; others only if they are.
DATA_FILES = (".h5", ".hdf5", ".he5", ".hdf", ".nc", ".mat",
              ".npz", ".npy", ".csv", ".parquet", ".pt", ".pkl")
FILE_AND_OPTIONS = re.compile(r"(?P<path>.*?)(?::(?P<options>\w+=[^,]*(?:,\w+=[^,]*)*))?", re.DOTALL)


def dataset_spec(text):
    """``text`` as the catalogue takes a data set: the path of a file, with options behind a colon
    or without, becomes an option of hdf5; a name of the catalogue is never a path."""
    found = FILE_AND_OPTIONS.fullmatch(text)
    if split(text)[0] in catalog.DATASETS or found is None:
        return text
    path, options = found["path"], found["options"]
    is_file = path.lower().endswith(DATA_FILES) or os.path.exists(path)
    if not is_file:
        return text
    return f"hdf5:file={quoted(os.path.abspath(path))}" + (f",{options}" if options else "")


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
                         "back."),
            click.option("--job-name", help="The job's name.  [default: fedmpi, of many runs fedmpi-sweep]"),
            click.option("--qos", help="Quality of service."),
            click.option("--constraint", help="Features that nodes must have, such as 'a100&nvme'."),
            click.option("--mail-user", metavar="ADDRESS", help="Who gets mail.  [default: who submits]"),
            click.option("--mail-type", metavar="TYPE,...", help="When mail is sent, such as END,FAIL."),
            click.option("--log", metavar="PATH", help="Where the output goes; %j is the job's number, %a the run's in "
                         "an array.  [default: slurm-%j.out]"),
            click.option("--cpus-per-task", type=click.IntRange(1), default=1, show_default=True, help="CPUs a rank, "
                         "which trains on one thread."),
            click.option("--sbatch", multiple=True, metavar="NAME[=VALUE]", help="Any other option of sbatch, such as "
                         "reservation=me or exclusive. May be given several times."))):
        command = option(command)
    return command


def on_command_line(name):
    """Whether the option ``name`` of this command was given, not taken from a default or a file."""
    return click.get_current_context().get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def refuse_slurm(why):
    """UserError, which says ``why``, where an option was given that only a batch script has."""
    from fedmpi.cluster.sbatch import Job
    given = [name for name in (*Job._fields, "at_once", "script", "submit")
             if name not in ("ranks", "launcher") and on_command_line(name)]
    if given:
        raise UserError(f"{', '.join('--' + name.replace('_', '-') for name in given)}: {why}")


def start_of_ranks(given):
    """What is put before a run's command to start the ranks that the command line asks for; empty for one."""
    from fedmpi.cluster.sbatch import program
    program(given["launcher"])
    if not on_command_line("ranks") or given["ranks"] == 1:
        if on_command_line("launcher"):
            raise UserError("--launcher has no effect in one process: it starts the ranks of --ranks N")
        return []
    name, *more = shlex.split(given["launcher"])
    return [launcher_path(name), *more, "-n", str(given["ranks"])]


def check_script(script, submit):
    """Refuse before any work what --script and --submit cannot do."""
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
    if not script:
        click.echo(text, nl=False)
        return
    with open(script, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    if submit and (code := subprocess.run(["sbatch", script], check=False).returncode):
        os.remove(script)
        raise FedError(f"sbatch refused the script (exit code {code}, see above), and {script} is removed: nothing is "
                       "queued, the same command may try again")


def typed(options, where):
    """The options of one run as the command line of train would give them, those that are given."""
    for key, value in options.items():
        kinds = (str, int, float) + (list,) * (key in SEVERAL)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise UserError(f"{where}: {key} cannot be {value!r}")
    try:
        given = _train().make_context("train", arguments(options)).params
        check_parts(given)
    except (click.UsageError, UserError) as error:
        line = error.format_message() if isinstance(error, click.UsageError) else error
        raise UserError(f"{where}: {line}") from None
    return {key: value for key, value in given.items() if key in DEFAULTS and value is not None}


def all_options(given):
    """All options of a run of which these are given; what follows from a file of own data is read
    from it."""
    from fedmpi.build.natural import settled_by_file
    return settled_by_file(opened(given))


def known_options(folder):
    """``{name: options}`` of the runs that have a file of their options in the folder; a file with tables, such as that
    of a recipe or a grid, is none."""
    known = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.endswith(".toml"):
            path = os.path.join(folder, name)
            found = toml(path, path)
            if not any(isinstance(value, dict) for value in found.values()):
                known[name.removesuffix(".toml")] = all_options(typed(found, path))
    return known


def array(folder, points, todo, at_once, given):
    """The batch script for the runs ``todo``, with room for the largest; tells what it asks for."""
    from fedmpi.cluster import sbatch as slurm
    options = [points[number].options | {"out": os.path.join(folder, "NAME.h5")} for number in todo]
    job = slurm.Job(**given)
    job = job._replace(ranks=job.ranks or max(map(slurm.cohort, options)) + 1)
    slurm.check_log_of_array(job.log)
    for each in options:
        slurm.check(job, each)
    largest = max(options, key=lambda each: slurm.node_bytes(job, each))
    say(f"an array job of {len(todo)} runs" + f", {at_once} at a time" * (at_once > 0) + "; each:")
    for line in slurm.told(job, largest):
        say(line)
    return slurm.array_script(job, slurm.node_bytes(job, largest), [point.name for point in points], todo, at_once,
                              folder, sys.argv[1:])


def check_data(options):
    """Read every data set of these runs once: DataError for one that is missing or broken, before hours are played."""
    for dataset, folder in sorted({(each["dataset"], each["data_dir"]) for each in options}):
        make(catalog.DATASETS, dataset, folder)


def play_all(folder, names, start, datasets, parallel, line):
    """Play the runs of these names, ``parallel`` at a time, each by ``start`` before the command; a line for each that
    has ended, ``line(name, code, seconds)``. The exit code: of those that ask to be continued, else 1 where any
    failed."""
    from fedmpi.study.play import play
    done = []

    def told(name, code, seconds):
        done.append(name)
        say(f"{len(done)}/{len(names)} {line(name, code, seconds)}")

    def waits(names):
        say(f"waiting for {len(names)} runs that another process plays, such as {names[0]}: one that was killed has "
            "left them, or plays them now")

    codes, stopped = play(folder, names, start, datasets, parallel, told, waits)
    if stopped:
        say("stopped; the same command goes on")
        return stop.COME_BACK
    return 1 if any(codes.values()) else 0


def arguments(given):
    """The options that are ``given``, as the command line of train, without the run file."""
    pairs = [(key, value) for key, values in given.items() if key != "out" and values is not None
             for value in (values if isinstance(values, (tuple, list)) else [values])]
    return [text for key, value in pairs for text in (f"--{key.replace('_', '-')}", str(value))]


def _train():
    """The command that trains, whose options these are."""
    return click.get_current_context().find_root().command.commands["train"]
