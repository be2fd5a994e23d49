"""What started this process, by its environment alone, before MPI is touched."""

import os
import shutil
import sys

from fedmpi.errors import UserError

RANKS = ("OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
SIZES = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE")
STEP = "SLURM_STEP_NUM_TASKS"
SRUN = {"pmi2": "srun, PMI-2", "pmix": "srun, PMIx"}


def launcher(env=os.environ):
    """Its name for people, such as ``srun, PMI-2``; ``none`` for a process that nobody started as a rank."""
    if "OMPI_COMM_WORLD_RANK" in env:
        return "mpirun of Open MPI, PRRTE" if "PRTE_LAUNCHED" in env else "mpirun of Open MPI"
    if "PMI_RANK" in env and "MPI_LOCALRANKID" in env:       # inside a job Hydra starts its own helpers by srun
        return "mpirun of MPICH, Hydra"
    if STEP in env and (started(env) or int(env[STEP]) > 1):
        return SRUN.get(env.get("SLURM_MPI_TYPE", "").partition("_")[0], "srun")
    return "another launcher" if started(env) else "none"


def started(env=os.environ):
    """Whether a launcher that speaks to MPI started this process."""
    return any(name in env for name in RANKS)


def rank_and_size(env=os.environ):
    """``(rank, size)`` as the launcher tells; size 0 where it does not say."""
    tasks = int(env.get(STEP, 0))
    rank = next((int(env[name]) for name in RANKS if name in env), None)
    if rank is None:                                       # alone, or srun without an MPI that it starts
        return (int(env["SLURM_PROCID"]), tasks) if tasks > 1 else (0, 1)
    size = next((int(env[name]) for name in SIZES if name in env), None)
    return rank, tasks if size is None else size


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
