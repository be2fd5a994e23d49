"""Which launcher started a rank, by environments that were seen; and a run by the Open MPI that can be found."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import environment, python_processes

from fedmpi.launcher import launcher, rank_and_size
from fedmpi.store import read_run

OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "MPI4PY_MPIABI": "openmpi",
            "OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
STEP = {"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "2"}


@pytest.mark.parametrize("env, name, found", [
    ({}, "none", (0, 1)),
    ({"PMI_RANK": "2", "PMI_SIZE": "3", "MPI_LOCALRANKID": "2"}, "mpirun of MPICH, Hydra", (2, 3)),
    ({"PMI_RANK": "2", "PMI_SIZE": "3", "MPI_LOCALRANKID": "2", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0",
      "SLURM_MPI_TYPE": "pmi2"}, "mpirun of MPICH, Hydra", (2, 3)),
    ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "2"}, "mpirun of Open MPI", (2, 3)),
    ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "2", "PRTE_LAUNCHED": "1"},
     "mpirun of Open MPI, PRRTE", (2, 3)),
    (STEP | {"PMI_RANK": "2", "PMI_SIZE": "3", "SLURM_MPI_TYPE": "pmi2"}, "srun, PMI-2", (2, 3)),
    (STEP | {"PMIX_RANK": "2", "SLURM_MPI_TYPE": "pmix"}, "srun, PMIx", (2, 3)),
    (STEP | {"PMIX_RANK": "2", "SLURM_MPI_TYPE": "pmix_v4"}, "srun, PMIx", (2, 3)),
    (STEP | {"SLURM_MPI_TYPE": "none"}, "srun", (2, 3)),
    ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, "none", (0, 1)),
    ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "another launcher", (1, 2)),
    ({"PMIX_RANK": "1"}, "another launcher", (1, 0)),
])
def test_a_launcher_is_known_by_what_it_leaves_in_the_environment(env, name, found):
    assert (launcher(env), rank_and_size(env)) == (name, found)


def test_a_run_says_and_records_what_started_it(fedmpi, tmp_path):
    output = fedmpi(2, "train", "--rounds", 1, "--clients", 2, "--local-epochs", 1, "--out", tmp_path / "run.h5")
    told = re.search(r"2 ranks ready after \d+ s \(started by (mpirun of .*?); (.*?)\)",
                     " ".join(output.split()))
    run = read_run(tmp_path / "run.h5")
    assert run.attrs["launcher"] == run.sessions[0]["launcher"] == told[1]
    assert told[2].split()[-1].lstrip("v") in run.attrs["versions"]["mpi"]


@pytest.fixture
def open_mpi(tmp_path):
    """``open_mpi(arguments) -> Popen`` of fedmpi on 2 ranks by an Open MPI beside this environment's MPI."""
    mpirun = shutil.which("mpirun.openmpi")
    if mpirun is None:
        pytest.skip("no mpirun.openmpi: apt-get install openmpi-bin")
    if pathlib.Path(sys.executable).with_name("mpirun").exists():            # mpi4py would find its library first
        site = next(path for path in sys.path if path.endswith("site-packages"))
        subprocess.run([os.path.realpath(sys.executable), "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
        next((tmp_path / "venv/lib").glob("python3*/site-packages")).joinpath("all.pth").write_text(site)
        python = tmp_path / "venv/bin/python"
    else:
        python = sys.executable

    def start(*arguments, **env):
        return subprocess.Popen(
            [mpirun, "-n", "2", str(python), "-m", "fedmpi", *map(str, arguments)], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
            env=environment(**OPEN_MPI, PYTHONPATH=str(pathlib.Path(__file__).parents[1]), **env))

    return start


def test_open_mpi_starts_a_run_and_passes_on_that_it_is_to_stop(fedmpi, open_mpi, tmp_path):
    process, output = open_mpi("train", "--rounds", 500, "--clients", 4, "--local-epochs", 1, "--device", "cpu",
                               "--out", tmp_path / "run.h5"), ""
    for line in process.stdout:
        output += line
        if "round   2/" in line:
            process.send_signal(signal.SIGUSR1)
            break
    output += process.communicate(timeout=60)[0]
    assert process.returncode == 85 and "started by mpirun of Open MPI; Open MPI v" in " ".join(output.split()), output
    assert read_run(tmp_path / "run.h5").attrs["status"] == "interrupted"
    assert python_processes(process.pid) == []
