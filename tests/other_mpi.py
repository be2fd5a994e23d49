"""Debian's MPIs beside the one of this environment: how each is started, and a Python whose mpi4py loads it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
from conftest import environment

ROOT = pathlib.Path(__file__).parents[1]
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
OPEN_MPI_AS_ROOT_ON_FEW_CORES = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


TINY_RUN = ("--rounds", 1, "--clients", 3, "--local-epochs", 1, "--device", "cpu", "--dataset",
            "synthetic:samples=120", "--model", "logistic")


class OtherMpi(NamedTuple):
    """``mpirun`` and ``python`` are paths; ``env`` is what both need in the environment."""
    mpirun: str
    python: str
    env: dict

    def fedmpi(self, *arguments):
        """The words of one rank's command."""
        return [self.python, "-m", "fedmpi", *map(str, arguments)]

    def start(self, ranks, *arguments):
        """A process, fedmpi on that many ranks by mpirun."""
        argv = [self.mpirun, "-n", str(ranks), *self.fedmpi(*arguments)]
        return subprocess.Popen(argv, env=environment(**self.env), text=True, start_new_session=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def open_mpi(folder):
    """Debian's Open MPI; the test is skipped where it is not installed."""
    return OtherMpi(
        mpirun=installed("mpirun.openmpi", "openmpi-bin"),
        python=python_without_mpi(folder),
        env=OPEN_MPI_AS_ROOT_ON_FEW_CORES | {"PYTHONPATH": str(ROOT), "MPI4PY_MPIABI": "openmpi"})


def mpich(folder):
    """Debian's MPICH, whose library goes by another name; the test is skipped where it is not installed."""
    mpirun = installed("mpirun.mpich", "mpich")
    libraries = folder / "libraries"
    libraries.mkdir()
    (libraries / "libmpi.so.12").symlink_to(library("libmpich.so.12"))
    return OtherMpi(
        mpirun=mpirun,
        python=python_without_mpi(folder),
        env={"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(libraries)})


DEBIAN = {"Open MPI": open_mpi, "MPICH": mpich}


def installed(program, package):
    """The program's path; the test is skipped where there is none."""
    path = shutil.which(program, path=SEARCHED)
    if path is None:
        pytest.skip(f"no {program}: apt-get install {package}")
    return path


def library(name):
    """The path of a shared library that the dynamic linker knows."""
    ldconfig = shutil.which("ldconfig", path=SEARCHED)
    known = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    return re.search(rf"\s{re.escape(name)} .*=> (\S+)", known)[1]


def python_without_mpi(folder):
    """A Python with the packages of this one; mpi4py finds no MPI beside it, and so looks further."""
    if not pathlib.Path(sys.executable).with_name("mpirun").exists():
        return sys.executable
    plain = os.path.realpath(sys.executable)
    subprocess.run([plain, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    own, = (folder / "venv/lib").glob("python3*/site-packages")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (own / "all.pth").write_text(packages)
    return str(folder / "venv/bin/python")
