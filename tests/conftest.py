"""What every test gets: one thread, and the command line in this process or on many ranks."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["COLUMNS"] = "80"              # whatever terminal the tests are started from

import pytest  # noqa: E402
import torch  # noqa: E402

from fedmpi.cli import main
from warm_ranks import READ_LATE, WarmRanks

torch.set_num_threads(1)
pytest_plugins = ["skipped"]
SCRIPT = pathlib.Path(__file__).with_name("commands_script.py")
LONGEST = ("experiment", "slurm", "same_bits", "catalog", "surroundings", "stop", "killing", "page", "failure",
           "extend", "benches", "plugins", "sweep", "reading", "disk", "launcher", "store", "readme", "silence",
           "floors", "hdf5", "report", "transport", "shapley", "doctor")
LAUNCHERS = ("PMI_", "PMIX_", "OMPI_", "HYDRA_", "MPI_LOCAL", "SLURM_")


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=6, help="How often tests/runs/test_killing.py kills one run.")
    parser.addoption("--large-kills", type=int, default=5, help="The same of tests/runs/test_killing_large.py.")
    parser.addoption("--large-weights", type=float, default=3e5, help="Of the model of that run.")
    parser.addoption("--kills-log", default=os.devnull, help="Where it writes what came out of each.")


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that at the end no worker is left alone with one."""
    names = [f"test_{name}.py" for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path.name) if item.path.name in names else len(names))


def environment(**extra):
    """The environment without traces of a launcher that pytest itself may run under."""
    return {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)} | extra


def find_mpirun():
    """The mpirun of this environment, else the machine's."""
    beside = pathlib.Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun")


def python_processes(root):
    """The ranks among the descendants of mpirun, by process id; not what they have forked."""
    family, ranks = {root}, []
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            with open(f"/proc/{pid}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{pid}/cmdline") as file:
                arguments = file.read().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent in family and parent not in ranks:
            family.add(pid)
            if arguments[1:4] == ["-m", "fedmpi", "train"]:
                ranks.append(pid)
    return ranks


@pytest.fixture(scope="session")
def command():
    """``command(ranks, *arguments) -> argv`` of the fedmpi command on that many ranks; 1 is without mpirun."""

    def build(ranks, *arguments):
        argv = [sys.executable, "-m", "fedmpi", *map(str, arguments)]
        if ranks == 1:
            return argv
        mpirun = find_mpirun()
        if mpirun is None:
            pytest.skip("no mpirun: pip install mpich, or load the cluster's MPI")
        return [mpirun, "-n", str(ranks), *argv]

    return build


@pytest.fixture(scope="session")
def warm():
    """``warm(argv, env) -> argv`` of ranks forked from one process that has imported torch: see ``warm_ranks``. Where
    ``env`` may change how libraries are imported, or without mpirun, ``argv`` stays as it is."""
    ranks = WarmRanks()

    def instead(argv, env):
        launched = argv[0] != sys.executable
        if not launched or not all(name.startswith(READ_LATE) for name in env):
            return argv
        at = argv.index(sys.executable)
        return [*argv[:at], *ranks.argv(argv[at + 1 :], environment())]

    yield instead
    ranks.close()


@pytest.fixture(scope="session")
def fedmpi(command, warm):
    """``fedmpi(ranks, *arguments, code=0) -> output``: the command, run to its end, which must be ``code``. One rank
    runs in this process, as a notebook would; more, or a changed environment, in processes of their own."""

    def run(ranks, *arguments, code=0, timeout=240, **env):
        if ranks == 1 and not env:
            status, output = _in_process(arguments)
        else:
            done = subprocess.run(warm(command(ranks, *arguments), env), env=environment(**env), timeout=timeout,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            status, output = done.returncode, done.stdout
        assert status == code, f"exit code {status}, expected {code}:\n{output}"
        return output

    return run


@pytest.fixture(scope="session")
def in_turn(command, warm):
    """``in_turn(ranks, commands, **env) -> output``: commands of fedmpi that succeed one after the other on the same
    ranks, which are started once."""

    def run(ranks, commands, timeout=240, **env):
        launch = command(ranks)
        at = launch.index("-m")
        argv = [*launch[:at], str(SCRIPT), json.dumps([[*map(str, each)] for each in commands])]
        done = subprocess.run(warm(argv, env), env=environment(**env), timeout=timeout, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def _in_process(arguments):
    """``(exit code, output)`` of the console script's main function."""
    output, old = io.StringIO(), sys.argv
    sys.argv = ["fedmpi", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main()
    except SystemExit as end:
        return end.code, output.getvalue()
    finally:
        sys.argv = old
