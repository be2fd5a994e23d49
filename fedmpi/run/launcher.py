"""What started this process, by its environment alone, before MPI is touched."""

import os
import shutil
import stat
import sys

from fedmpi.core.errors import Mislaunched, UserError

RANKS = ("OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
SIZES = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE")
STEP, TASK, PTY = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_PTY_PORT"
SOCKET = "PMI_FD"                        # the number of an open file, by which a rank talks to its launcher
FOLDERS = ("PMIX_SERVER_TMPDIR", "OMPI_MCA_orte_top_session_dir")    # that a launcher removes when it ends
MPIRUNS = ("mpirun", "mpiexec", "orterun", "prterun", "prun")        # as their processes are called
STARTERS = (*MPIRUNS, "hydra", "pmi_proxy", "orted", "prted", "slurmstepd")     # what the parents of ranks are called
OURS = (*RANKS, *SIZES, STEP)            # variables that make us one rank of several
SRUN = {"pmi2": "srun, PMI-2", "pmix": "srun, PMIx"}


def launcher(env=os.environ):
    """Its name for people, such as ``srun, PMI-2``; ``none`` for a process that nobody started as a rank."""
    if "OMPI_COMM_WORLD_RANK" in env:
        return "mpirun of Open MPI, PRRTE" if "PRTE_LAUNCHED" in env else "mpirun of Open MPI"
    if "PMI_RANK" in env and "MPI_LOCALRANKID" in env:       # inside a job Hydra starts its own helpers by srun
        return "mpirun of MPICH, Hydra"
    if _number(env, TASK) is not None and (started(env) or (_number(env, STEP) or 0) > 1):
        return SRUN.get(env.get("SLURM_MPI_TYPE", "").partition("_")[0], "srun")
    return "another launcher" if started(env) else "none"


def started(env=os.environ):
    """Whether a launcher that speaks to MPI started this process."""
    return any(_number(env, name) is not None for name in RANKS)


def rank_and_size(env=os.environ):
    """``(rank, size)`` as the launcher tells; size 0 where it does not say. A variable that holds no number tells
    nothing."""
    tasks, task = _number(env, STEP) or 0, _number(env, TASK)
    rank = _first(env, RANKS)
    if rank is None:                                       # alone, or srun without an MPI that it starts
        return (task, tasks) if tasks > 1 and task is not None else (0, 1)
    size = _first(env, SIZES)
    return rank, tasks if size is None else size


def _number(env, name):
    """What the variable holds; None where it is not set, or holds no number."""
    text = env.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _first(env, names):
    """What the first of the variables that holds a number holds, else None."""
    numbers = (_number(env, name) for name in names)
    return next((number for number in numbers if number is not None), None)


def speaks(env=os.environ):
    """Whether this process may tell a person something: of many ranks one does; a process that only looks like a rank
    must, as nobody else would."""
    return rank_and_size(env)[0] == 0 or not any(name.startswith(STARTERS) for _, name in parents())


def parents():
    """Yields ``(process id, name)`` of this process's parent, of the parent's parent, and so on."""
    pid = os.getppid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                before, _, after = file.read().rpartition(")")
        except OSError:
            return
        yield pid, before.partition("(")[2]
        pid = int(after.split()[1])


def ended(env=os.environ):
    """Whether the launcher that the environment speaks of is surely out of reach, such as one that has ended."""
    return _dead_socket(env) or any(name in env and not os.path.isdir(env[name]) for name in FOLDERS)


def _dead_socket(env):
    number = _number(env, SOCKET)
    if number is None:
        return False
    try:
        return not stat.S_ISSOCK(os.fstat(number).st_mode)
    except (OSError, OverflowError):
        return True


def check(env=os.environ):
    """Mislaunched where the environment shows, without MPI, that other ranks were not started with this one."""
    rank, size = rank_and_size(env)
    if size != 1 and ended(env):
        raise Mislaunched(f"{_told(env)}, but the launcher that set it is out of reach: {_way_out(env)}")
    if size != 1 and PTY in env and (os.isatty(0) or os.isatty(2)):        # a rank has no terminal, a shell has
        raise Mislaunched(f"{_told(env)}, but srun --pty starts one shell for all of them: in it, start ranks by srun "
                          f"fedmpi ..., or {_way_out(env)}")


def check_world(rank, size, env=os.environ):
    """Mislaunched where MPI says ``rank`` and ``size``, and the launcher another thing."""
    told_rank, told_size = rank_and_size(env)
    if (rank, size) == (told_rank, told_size or size):
        return
    raise Mislaunched(
        f"the launcher says rank {told_rank} of {told_size or 'several'}, MPI says rank {rank} of {size}: in a shell "
        f"that only has {', '.join(_set(env))} from a launcher, as that of srun --pty, {_way_out(env)}; else this "
        "launcher belongs to another MPI than the one mpi4py loads: use the mpirun beside it, or the srun --mpi=... "
        "that your MPI takes, pmi2 or pmix")


def _set(env):
    """The variables that make this process one rank of several."""
    return [name for name in OURS if name in env]


def without_ranks(env):
    """The environment of a process that is no rank, whatever this one takes itself for."""
    return {name: value for name, value in env.items() if name not in (*OURS, SOCKET)}


def _told(env):
    rank, size = rank_and_size(env)
    return f"{', '.join(_set(env))} in the environment make this rank {rank} of {size or 'several'}"


def _way_out(env):
    removed = " ".join(f"-u {name}" for name in _set(env))
    return f"play in one process by env {removed} fedmpi ..."


def launcher_path(name):
    """Where the launcher ``name`` is: in this environment, whose MPI mpi4py loads, else on PATH; UserError where it is
    in neither."""
    path = find_launcher(name)
    if path is None:
        raise UserError(f"there is no {name} beside {sys.executable} nor on PATH: pip install mpich brings mpirun; on "
                        "a cluster load its MPI")
    return path


def find_launcher(name):
    """As ``launcher_path``; None where it is in neither."""
    beside = os.path.dirname(sys.executable)
    return shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
