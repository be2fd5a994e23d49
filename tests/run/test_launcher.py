"""Which launcher started a rank, by environments that were seen; and runs by the MPIs of Debian."""

import pathlib
import re
import signal
import sys

import pytest
from conftest import python_processes
from other_mpi import DEBIAN, TINY_RUN, open_mpi

from fedmpi.run.launcher import launcher, rank_and_size
from fedmpi.store import read_run, verify

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


@pytest.fixture(scope="module")
def alone(fedmpi, tmp_path_factory):
    """A tiny run in one process, without any MPI."""
    path = tmp_path_factory.mktemp("alone") / "run.h5"
    fedmpi(1, "train", *TINY_RUN, "--out", path)
    return path


@pytest.mark.parametrize("name", DEBIAN)
def test_another_mpi_gives_the_same_bits(alone, tmp_path, name):
    process = DEBIAN[name](tmp_path).start(3, "train", *TINY_RUN, "--out", tmp_path / "run.h5")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert re.search(rf"3 ranks ready .* \(started by mpirun of {name}[^;]*; {name} v?\d", output), output
    assert verify(alone, tmp_path / "run.h5") == []


def test_the_launcher_of_another_mpi_is_told_with_the_right_one(tmp_path):
    """As it happens where PATH has another mpirun before that of this environment."""
    beside = pathlib.Path(sys.executable).with_name("mpirun")
    if not beside.exists():
        pytest.skip("no mpirun beside this Python: pip install mpich")
    wrong = open_mpi(tmp_path)._replace(python=sys.executable)
    wrong.env.pop("MPI4PY_MPIABI")
    process = wrong.start(2, "train", *TINY_RUN, "--out", tmp_path / "run.h5")
    output = process.communicate(timeout=60)[0]
    told = [line for line in output.splitlines() if line.startswith("error:")]
    assert process.returncode != 0 and not (tmp_path / "run.h5").exists()
    assert len(told) == 1 and "died while it started MPI" in told[0] and str(beside) in told[0], output


def test_open_mpi_passes_on_that_a_run_is_to_stop(tmp_path):
    process = open_mpi(tmp_path).start(2, "train", "--rounds", 500, "--clients", 4, "--local-epochs", 1, "--device",
                                       "cpu", "--out", tmp_path / "run.h5")
    output = ""
    for line in process.stdout:
        output += line
        if "round   2/" in line:
            process.send_signal(signal.SIGUSR1)
            break
    output += process.communicate(timeout=60)[0]
    assert process.returncode == 85 and "started by mpirun of Open MPI; Open MPI v" in " ".join(output.split()), output
    assert read_run(tmp_path / "run.h5").attrs["status"] == "interrupted"
    assert python_processes(process.pid) == []
