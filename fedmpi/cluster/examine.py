"""What ``fedmpi doctor`` measures, on every rank and between them; ``fedmpi.cluster.doctor`` judges it."""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version

from fedmpi import __version__
from fedmpi.cluster import doctor
from fedmpi.run import launch
from fedmpi.transport import place
from fedmpi.core.errors import Mislaunched, UserError
from fedmpi.run.launcher import find_launcher, launcher, rank_and_size, speaks, without_ranks
from fedmpi.core.paths import GONE, working_folder
from fedmpi.run.surroundings import around, check_hdf5

LIMITS = {"open_files": resource.RLIMIT_NOFILE, "core_bytes": resource.RLIMIT_CORE,
          "stack_bytes": resource.RLIMIT_STACK, "locked_bytes": resource.RLIMIT_MEMLOCK}
MPI_ALONE = "import json; from fedmpi.transport.probe import library; print(json.dumps(library()))"
PATIENCE_S = 30


class Patient:
    """A worker that is only examined."""

    def receive(self, meta, arrays):
        pass

    def run(self, job, arrays):
        return {}, {}


def examine(folder, show, say):
    """Measure, judge, and ``show(facts, findings)`` on rank 0; returns the exit code."""
    def play(connect):
        facts = measured(connect, folder)
        findings = doctor.judged(facts)
        show(facts, findings)
        return doctor.exit_code(findings)

    try:
        return launch.on_ranks(play, Patient, say, see=lambda local: of_rank(local, launched=True))
    except Mislaunched as error:
        if not speaks():
            raise
        facts = measured_alone(folder, str(error))
    findings = doctor.judged(facts)
    show(facts, findings)
    return doctor.exit_code(findings)


def measured(connect, folder):
    """All facts, as JSON takes them: ``ranks`` by number, ``probe`` between them (None in one process), ``folder``."""
    alone = rank_and_size()[1] == 1
    own = of_rank(0 if alone else place.SERVER, launched=not alone)
    transport = connect()
    ranks = {0: own | {"node": 0}} | transport.places
    return {"ranks": dict(sorted(ranks.items())), "probe": None if alone else transport.probe(),
            "folder": of_folder(folder), "mpirun": mpirun(), "around": around(), "mislaunched": ""}


def measured_alone(folder, mislaunched):
    """All facts of a process that takes itself for a rank and is none, as ``mislaunched`` says."""
    return {"ranks": {0: of_rank(0, launched=False) | {"node": 0}}, "probe": None, "folder": of_folder(folder),
            "mpirun": mpirun(), "around": around(), "mislaunched": mislaunched}


def of_rank(local, launched):
    """What a rank tells of itself; ``launched`` by an MPI launcher, else MPI is looked at from a process of its own."""
    import torch
    torch.set_num_threads(1)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = file.read()
    return place.mine(local) | {
        "versions": {name: version(name) for name in ("torch", "numpy", "h5py", "mpi4py")} | {
            "fedmpi": __version__, "python": platform.python_version()},
        "mpi": _library() if launched else _library_elsewhere(), "launcher": launcher(),
        "torch": {"cuda": torch.version.cuda or "", "available": torch.cuda.is_available(),
                  "mkl": torch.backends.mkl.is_available(),
                  "onednn": torch.backends.mkldnn.is_available(), "vectors": torch.backends.cpu.get_cpu_capability()},
        "driver": _first_line("/proc/driver/nvidia/version"), "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "mps": bool(os.environ.get("CUDA_MPS_PIPE_DIRECTORY")),
        "limits": {name: resource.getrlimit(which)[0] for name, which in LIMITS.items()},
        "swap_bytes": place.swap_bytes(), "machine_cores": os.cpu_count(),
        "temporary": _disk(_temporary(), mounts), "shm": _disk("/dev/shm", mounts)}


def of_folder(folder):
    """The run directory: its file system, its room, and what a trial there found."""
    if not (os.path.isabs(folder) or working_folder()):
        return _disk("", "") | {"path": folder, "write": GONE}
    try:
        check_hdf5()
    except UserError as error:
        return _disk("", "") | {"path": folder, "write": str(error)}
    from fedmpi.store import trial
    found = trial(folder)
    there = os.path.abspath(folder)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return _disk(there, file.read()) | found | {"path": folder}


def _temporary():
    """The folder for temporary files; empty where none takes any."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return ""


def _disk(path, mounts):
    if not os.path.isdir(path):
        return {"path": path, "type": "", "free_bytes": 0, "total_bytes": 0}
    usage = shutil.disk_usage(path)
    return {"path": path, "type": doctor.file_system(os.path.realpath(path), mounts), "free_bytes": usage.free,
            "total_bytes": usage.total}


def _library():
    from fedmpi.transport.probe import library
    return library()


def _library_elsewhere():
    """What MPI a process of its own loads: on a login node loading it may fail, or hang."""
    try:
        done = subprocess.run([sys.executable, "-c", MPI_ALONE], capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False, env=without_ranks(os.environ))
    except subprocess.TimeoutExpired:
        return {"error": f"MPI did not start within {PATIENCE_S} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def mpirun():
    """``{"path", "text", "typed", "typed_text"}``: the mpirun that fedmpi starts, and another one that PATH has for
    whoever types its name; each with its version's text. Empty texts where there is none."""
    path = find_launcher("mpirun") or find_launcher("mpiexec") or ""
    typed = shutil.which("mpirun") or ""
    if typed and os.path.realpath(typed) == os.path.realpath(path):
        typed = ""
    return {"path": path, "text": _version(path), "typed": typed, "typed_text": _version(typed)}


def _version(path):
    """The first 200 characters of what a launcher says of itself."""
    if not path:
        return ""
    argv = [path, "--version"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[:200]
    return " ".join(done.stdout.split())[:200]


def _first_line(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return ""
