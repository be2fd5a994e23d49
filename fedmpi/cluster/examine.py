"""The measurements of ``fedmpi doctor``, on every rank and between them; ``fedmpi.cluster.doctor``
judges them."""

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
    """All facts, as JSON takes them: ``ranks`` by number, ``probe`` between them (None in one
    process), ``folder``."""
    alone = rank_and_size()[1] == 1
    if alone:
        own = of_rank(0, launched=False)
    else:
        own = of_rank(place.SERVER, launched=True)
    transport = connect()
    ranks = {0: own | {"node": 0}} | transport.places
    probe = None
    if not alone:
        probe = transport.probe()
    return _facts(dict(sorted(ranks.items())), probe, folder, "")


def measured_alone(folder, mislaunched):
    """All facts of a process that takes itself for a rank and is none, as ``mislaunched`` says."""
    own = of_rank(0, launched=False)
    return _facts({0: own | {"node": 0}}, None, folder, mislaunched)


def _facts(ranks, probe, folder, mislaunched):
    return {
        "ranks": ranks,
        "probe": probe,
        "folder": of_folder(folder),
        "mpirun": mpirun(),
        "around": around(),
        "mislaunched": mislaunched,
    }


def of_rank(local, launched):
    """The facts that a rank tells of itself; ``launched`` by an MPI launcher, else another process
    looks at MPI."""
    import torch
    torch.set_num_threads(1)
    mounts = _mounts()
    facts = place.mine(local)
    facts["versions"] = _versions()
    facts["mpi"] = _library() if launched else _library_elsewhere()
    facts["launcher"] = launcher()
    facts["torch"] = {
        "cuda": torch.version.cuda or "",
        "available": torch.cuda.is_available(),
        "mkl": torch.backends.mkl.is_available(),
        "onednn": torch.backends.mkldnn.is_available(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }
    facts["driver"] = _first_line("/proc/driver/nvidia/version")
    facts["visible"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    facts["mps"] = bool(os.environ.get("CUDA_MPS_PIPE_DIRECTORY"))
    facts["limits"] = {name: resource.getrlimit(number)[0] for name, number in LIMITS.items()}
    facts["swap_bytes"] = place.swap_bytes()
    facts["machine_cores"] = os.cpu_count()
    facts["temporary"] = _disk(_temporary(), mounts)
    facts["shm"] = _disk("/dev/shm", mounts)
    return facts


def _mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read()


def _versions():
    versions = {name: version(name) for name in ("torch", "numpy", "h5py", "mpi4py")}
    versions["fedmpi"] = __version__
    versions["python"] = platform.python_version()
    return versions


def of_folder(folder):
    """The run directory: its file system, its room, and the results of a trial there."""
    if not (os.path.isabs(folder) or working_folder()):
        return _disk("", "") | {"path": folder, "write": GONE}
    try:
        check_hdf5()
    except UserError as error:
        return _disk("", "") | {"path": folder, "write": str(error)}
    from fedmpi.store import trial
    results = trial(folder)
    # A folder that does not exist yet will lie on the disk of its parent.
    there = os.path.abspath(folder)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    return _disk(there, _mounts()) | results | {"path": folder}


def _temporary():
    """The folder for temporary files; empty if none takes any."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return ""


def _disk(path, mounts):
    if not os.path.isdir(path):
        return {"path": path, "type": "", "free_bytes": 0, "total_bytes": 0}
    usage = shutil.disk_usage(path)
    kind = doctor.file_system(os.path.realpath(path), mounts)
    return {"path": path, "type": kind, "free_bytes": usage.free, "total_bytes": usage.total}


def _library():
    from fedmpi.transport.probe import library
    return library()


def _library_elsewhere():
    """The MPI that a process of its own loads: on a login node loading it may fail, or hang."""
    command = [sys.executable, "-c", MPI_ALONE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False, env=without_ranks(os.environ))
    except subprocess.TimeoutExpired:
        return {"error": f"MPI did not start within {PATIENCE_S} s"}
    if not done.returncode:
        return json.loads(done.stdout.splitlines()[-1])
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return {"error": lines[-1]}


def mpirun():
    """``{"path", "text", "typed", "typed_text"}``: the mpirun that fedmpi starts, and another one
    in PATH that a user gets who types its name; each with its version's text. Empty texts if there
    is none."""
    path = find_launcher("mpirun") or find_launcher("mpiexec") or ""
    typed = shutil.which("mpirun") or ""
    if typed and os.path.realpath(typed) == os.path.realpath(path):
        typed = ""
    return {"path": path, "text": _version(path), "typed": typed, "typed_text": _version(typed)}


def _version(path):
    """The first 200 characters of a launcher's own words about itself."""
    if not path:
        return ""
    command = [path, "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[:200]
    return " ".join(done.stdout.split())[:200]


def _first_line(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return ""
