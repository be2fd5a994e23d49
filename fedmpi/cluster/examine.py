"""The measurements of ``fedmpi doctor``, on every rank and between them.

``fedmpi.cluster.doctor`` judges them.
"""

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

LIMITS = {
    "open_files": resource.RLIMIT_NOFILE,
    "core_bytes": resource.RLIMIT_CORE,
    "stack_bytes": resource.RLIMIT_STACK,
    "locked_bytes": resource.RLIMIT_MEMLOCK,
}
# The program of a process that only loads MPI.
MPI_ALONE = "import json; from fedmpi.transport.probe import library; print(json.dumps(library()))"
# Programs of an MPI that is set up badly may never end.
PATIENCE_S = 30
# Characters of a launcher's own words that are kept.
MOST_LETTERS = 200


class Patient:
    """A worker to be examined only."""

    def receive(self, meta, arrays):
        pass

    def run(self, job, arrays):
        return {}, {}


def examine(folder, show, say):
    """Measure, judge, and ``show(facts, findings)`` on rank 0; returns the exit code."""
    def judge(facts):
        findings = doctor.judged(facts)
        show(facts, findings)
        return doctor.exit_code(findings)

    def play(connect):
        facts = measured(connect, folder)
        return judge(facts)

    try:
        return launch.on_ranks(play, Patient, say, see=_of_launched)
    except Mislaunched as error:
        # Each of the processes that should have been ranks comes here; one of them speaks.
        if not speaks():
            raise
        facts = measured_alone(folder, str(error))
        return judge(facts)


def _of_launched(local):
    return of_rank(local, launched=True)


def measured(connect, folder):
    """All facts, as JSON takes them.

    ``ranks`` by number, the ``probe`` between them (None in one process), ``folder``, and
    facts about the surroundings.
    """
    _, num_ranks = rank_and_size()
    alone = num_ranks == 1
    if alone:
        own = of_rank(0, launched=False)
    else:
        own = of_rank(place.SERVER, launched=True)
    transport = connect()
    own["node"] = 0
    ranks = {0: own} | transport.places
    probe = None
    if not alone:
        probe = transport.probe()
    in_order = dict(sorted(ranks.items()))
    return _facts(in_order, probe, folder, "")


def measured_alone(folder, mislaunched):
    """All facts of a process taking itself for a rank by mistake, as ``mislaunched`` says."""
    own = of_rank(0, launched=False)
    own["node"] = 0
    return _facts({0: own}, None, folder, mislaunched)


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
    """The facts of a rank about itself.

    ``launched`` by an MPI launcher; else another process looks at MPI.
    """
    import torch
    # As in training, so that the probe finds the cores as busy as they will be.
    torch.set_num_threads(1)
    mounts = _mounts()
    facts = place.mine(local)
    facts["versions"] = _versions()
    if launched:
        facts["mpi"] = _library()
    else:
        facts["mpi"] = _library_elsewhere()
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
    facts["limits"] = _limits()
    facts["swap_bytes"] = place.swap_bytes()
    facts["machine_cores"] = os.cpu_count()
    facts["temporary"] = _disk(_temporary(), mounts)
    facts["shm"] = _disk("/dev/shm", mounts)
    return facts


def _limits():
    """``{name: the soft limit}``; -1 means unlimited."""
    limits = {}
    for name, number in LIMITS.items():
        soft, _ = resource.getrlimit(number)
        limits[name] = soft
    return limits


def _mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read()


def _versions():
    versions = {}
    for name in ("torch", "numpy", "h5py", "mpi4py"):
        versions[name] = version(name)
    versions["fedmpi"] = __version__
    versions["python"] = platform.python_version()
    return versions


def of_folder(folder):
    """The run directory: its file system, its room, and the results of a trial there."""
    is_reachable = os.path.isabs(folder) or working_folder()
    if not is_reachable:
        return _unusable(folder, GONE)
    try:
        check_hdf5()
    except UserError as error:
        return _unusable(folder, str(error))
    from fedmpi.store import trial
    results = trial(folder)
    # A folder that does not exist yet will lie on the disk of its parent.
    existing = os.path.abspath(folder)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    disk = _disk(existing, _mounts())
    return disk | results | {"path": folder}


def _unusable(folder, reason):
    """The facts of a folder without a trial, for a ``reason``."""
    return _disk("", "") | {"path": folder, "write": reason}


def _temporary():
    """The folder for temporary files; empty if none takes any."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return ""


def _disk(path, mounts):
    if not os.path.isdir(path):
        return {"path": path, "type": "", "free_bytes": 0, "total_bytes": 0}
    # A path through a link lies on the disk of its target.
    real_path = os.path.realpath(path)
    usage = shutil.disk_usage(path)
    return {
        "path": path,
        "type": file_system(real_path, mounts),
        "free_bytes": usage.free,
        "total_bytes": usage.total,
    }


def file_system(path, mounts):
    """The type of the file system of ``path``; ``mounts`` is the text of /proc/self/mountinfo."""
    innermost, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        # The kernel writes a blank in a path as \040.
        point = before.split()[4].replace("\\040", " ")
        folder = point.rstrip("/") + "/"
        is_inside = path == point or path.startswith(folder)
        # Of several mounts at one point the last is seen.
        if is_inside and len(point) >= len(innermost):
            innermost = point
            kind = after.split()[0]
    return kind


def _library():
    from fedmpi.transport.probe import library
    return library()


def _library_elsewhere():
    """The MPI loaded by another process: on a login node loading it may fail, or hang."""
    command = [sys.executable, "-c", MPI_ALONE]
    # Variables of a launcher would make it wait for other ranks.
    variables = without_ranks(os.environ)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False, env=variables)
    except subprocess.TimeoutExpired:
        return {"error": f"MPI did not start within {PATIENCE_S} s"}
    code = done.returncode
    if code == 0:
        # Some MPI libraries write lines of their own before.
        return json.loads(done.stdout.splitlines()[-1])
    lines = done.stderr.strip().splitlines() or [f"exit code {code}"]
    return {"error": lines[-1]}


def mpirun():
    """``{"path", "text", "typed", "typed_text"}`` of launchers and their versions.

    ``path`` is the mpirun started by fedmpi, ``typed`` another one behind the name in PATH. Empty
    texts if there is none.
    """
    path = find_launcher("mpirun") or find_launcher("mpiexec") or ""
    typed = shutil.which("mpirun") or ""
    if typed and os.path.realpath(typed) == os.path.realpath(path):
        typed = ""
    return {
        "path": path,
        "text": _version(path),
        "typed": typed,
        "typed_text": _version(typed),
    }


def _version(path):
    """The beginning of a launcher's own words about itself."""
    if not path:
        return ""
    command = [path, "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False)
        text = " ".join(done.stdout.split())
    except (OSError, subprocess.TimeoutExpired) as error:
        text = str(error)
    return text[:MOST_LETTERS]


def _first_line(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return ""
