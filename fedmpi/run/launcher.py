"""How this process was started: by its environment alone, before MPI is touched."""

import os
import shutil
import stat
import sys

from fedmpi.core.errors import Mislaunched, UserError

RANKS = ("OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
SIZES = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE")
STEP, TASK, PTY = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_PTY_PORT"
# The number of an open file, by which a rank talks to its launcher.
SOCKET = "PMI_FD"
# A launcher removes these folders when it ends.
FOLDERS = ("PMIX_SERVER_TMPDIR", "OMPI_MCA_orte_top_session_dir")
# Names of processes: of launchers, and of all parents of ranks.
MPIRUNS = ("mpirun", "mpiexec", "orterun", "prterun", "prun")
STARTERS = (*MPIRUNS, "hydra", "pmi_proxy", "orted", "prted", "slurmstepd")
# Any of these variables makes this process one rank of several.
OURS = (*RANKS, *SIZES, STEP)
SRUN = {"pmi2": "srun, PMI-2", "pmix": "srun, PMIx"}


def launcher(env=os.environ):
    """The launcher's name for people, such as ``srun, PMI-2``; ``none`` for a process alone."""
    if "OMPI_COMM_WORLD_RANK" in env:
        # PRRTE is the launcher of Open MPI 5.
        if "PRTE_LAUNCHED" in env:
            return "mpirun of Open MPI, PRRTE"
        return "mpirun of Open MPI"
    # Hydra before srun: inside a job Hydra starts its own helpers by srun.
    if "PMI_RANK" in env and "MPI_LOCALRANKID" in env:
        return "mpirun of MPICH, Hydra"
    if _by_srun(env):
        interface = env.get("SLURM_MPI_TYPE", "").partition("_")[0]
        return SRUN.get(interface, "srun")
    return "another launcher" if started(env) else "none"


def _by_srun(env):
    """Whether srun started this process as a rank."""
    if _number(env, TASK) is None:
        return False
    tasks = _number(env, STEP) or 0
    return started(env) or tasks > 1


def started(env=os.environ):
    """Whether a launcher that speaks to MPI started this process."""
    return any(_number(env, name) is not None for name in RANKS)


def rank_and_size(env=os.environ):
    """``(rank, size)`` by the launcher's variables; size 0 if unknown. A variable without a number
    does not count."""
    tasks = _number(env, STEP) or 0
    rank = _first(env, RANKS)
    if rank is None:
        return _step_of_srun(env, tasks)
    size = _first(env, SIZES)
    return rank, tasks if size is None else size


def _step_of_srun(env, tasks):
    """``(rank, size)`` of a process alone, or of one that srun started without an MPI."""
    task = _number(env, TASK)
    if tasks <= 1 or task is None:
        return 0, 1
    return task, tasks


def _number(env, name):
    """The number in a variable; None if it is not set, or holds no number."""
    text = env.get(name, "")
    if text.isascii() and text.isdecimal():
        return int(text)
    return None


def _first(env, names):
    """The first number in the variables ``names``; None if there is none."""
    for name in names:
        number = _number(env, name)
        if number is not None:
            return number
    return None


def speaks(env=os.environ):
    """Whether this process prints lines for people.

    Rank 0 does. So does a process without a launcher among its parents: it only looks like a rank,
    and there is no other to print for it.
    """
    rank, _ = rank_and_size(env)
    if rank == 0:
        return True
    return not any(name.startswith(STARTERS) for _, name in parents())


def parents():
    """Yield ``(process id, name)`` of this process's parent, of the parent's parent, and so on."""
    pid = os.getppid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            return
        # "pid (name) state parent ...": a name may hold brackets, too.
        before, _, after = text.rpartition(")")
        yield pid, before.partition("(")[2]
        pid = int(after.split()[1])


def ended(env=os.environ):
    """Whether the launcher in the environment is surely out of reach: it has ended, say."""
    folders = [env[name] for name in FOLDERS if name in env]
    return _dead_socket(env) or not all(map(os.path.isdir, folders))


def _dead_socket(env):
    """Whether the environment names a socket, and that file is no socket here."""
    number = _number(env, SOCKET)
    if number is None:
        return False
    try:
        return not stat.S_ISSOCK(os.fstat(number).st_mode)
    except (OSError, OverflowError):
        return True


def check(env=os.environ):
    """Mislaunched if the environment shows that this rank was started without the others."""
    _, size = rank_and_size(env)
    if size == 1:
        return
    claim, way_out = _claim(env), _way_out(env)
    if ended(env):
        raise Mislaunched(f"{claim}, but the launcher that set it is out of reach: {way_out}")
    # A rank has no terminal, a shell has.
    has_terminal = os.isatty(0) or os.isatty(2)
    if PTY in env and has_terminal:
        raise Mislaunched(
            f"{claim}, but srun --pty starts one shell for all of them: "
            f"in it, start ranks by srun fedmpi ..., or {way_out}")


def check_world(rank, size, env=os.environ):
    """Mislaunched if MPI's ``rank`` and ``size`` are not those of the launcher."""
    claimed_rank, claimed_size = rank_and_size(env)
    if (rank, size) == (claimed_rank, claimed_size or size):
        return
    variables = ", ".join(_rank_variables(env))
    raise Mislaunched(
        f"the launcher says rank {claimed_rank} of {claimed_size or 'several'}, "
        f"MPI says rank {rank} of {size}: in a shell that only has {variables} from a launcher, "
        f"as that of srun --pty, {_way_out(env)}; else this launcher belongs to another MPI than "
        "the one mpi4py loads: use the mpirun beside it, or the srun --mpi=... that your MPI "
        "takes, pmi2 or pmix")


def _rank_variables(env):
    """The variables that make this process one rank of several."""
    return [name for name in OURS if name in env]


def without_ranks(env):
    """The environment of a process alone: a copy of ``env`` without the variables of launchers."""
    removed = (*OURS, SOCKET)
    return {name: value for name, value in env.items() if name not in removed}


def _claim(env):
    rank, size = rank_and_size(env)
    variables = ", ".join(_rank_variables(env))
    return f"{variables} in the environment make this rank {rank} of {size or 'several'}"


def _way_out(env):
    removed = " ".join(f"-u {name}" for name in _rank_variables(env))
    return f"play in one process by env {removed} fedmpi ..."


def launcher_path(name):
    """The path of the launcher ``name``: in this environment, whose MPI mpi4py loads, else on PATH.
    UserError if there is none."""
    path = find_launcher(name)
    if path is None:
        raise UserError(f"there is no {name} beside {sys.executable} nor on PATH: "
                        "pip install mpich brings mpirun; on a cluster load its MPI")
    return path


def find_launcher(name):
    """As ``launcher_path``, but None if there is none."""
    beside = os.path.dirname(sys.executable)
    folders = [beside, os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(folders))
