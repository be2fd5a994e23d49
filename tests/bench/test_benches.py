"""The benches run, and tell figures of both sides; the figures themselves are no business of a test."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment, find_mpirun

from fedmpi.bench import round as works

ROOT = Path(__file__).parents[2]


def ratio(output, name="ratio"):
    return float(re.search(f"{name} ([0-9.]+)", output)[1])


def test_transport(fedmpi):
    output = fedmpi(3, "bench", "transport", "--weights", 40_000, "--replies", 50, "--repeats", 2)
    for words in ("positions known", "positions sent along", "small replies"):
        assert words in output
    assert ratio(output) > 0


def test_crowd(fedmpi):
    output = fedmpi(1, "bench", "crowd", "--ranks", 2, "--samples", 32, "--rounds", 1, "--repeats", 1)
    assert "2 ranks" in output and ratio(output) > 0


def test_memory_and_its_limit(fedmpi):
    output = fedmpi(2, "bench", "memory", "--model", "logistic", "--rounds", 10, "--limit", 1_000_000)
    assert "rank 1" in output and "KB more in round 10" in output


# cross-device is the same code, and slow.
@pytest.mark.parametrize("name, samples", [("cross-silo", 320), ("tiny", 1000)])
def test_rounds(fedmpi, monkeypatch, name, samples):
    options, arms, rounds = works.WORKS[name]
    monkeypatch.setitem(works.WORKS, name, (options, arms, rounds // 20 or 1))
    output = fedmpi(1, "bench", name, "--samples", samples, "--repeats", 1)
    assert ratio(output) > 0 and all(f"  {arm} " in output for arm in arms)


@pytest.mark.parametrize("more, sides", [(("--model", "lenet5", "--sparsity", 0.5), ("one by one", "2 side by side")),
                                         (("--model", "logistic", "--together", 1), ("one by one",))])
def test_steps(fedmpi, more, sides):
    output = fedmpi(1, "bench", "step", "--samples", 20, "--batch-size", 10, "--together", 2, "--repeats", 1,
                  "--device", "cpu", *more)
    assert all(f"  {side} " in output for side in ("bare loop", *sides)) and "recorded" not in output


def test_structure(fedmpi):
    output = fedmpi(1, "bench", "structure", "--model", "small-cnn:width=4", "--size", 8, "--rate", 0.25,
                  "--samples", 20, "--batch-size", 10, "--repeats", 2)
    assert ratio(output, "ratio, pair by pair +") > 0 and ratio(output, "values +") < 1
    assert "images (1, 8, 8), batch 10" in output and "to build a smaller network" in output


def test_structure_has_a_limit(fedmpi, monkeypatch):
    from fedmpi.bench import structure
    monkeypatch.setattr(structure, "LIMIT", 0.0)
    given = ("--model", "small-cnn:width=4", "--size", 8, "--samples", 20, "--repeats", 1)
    fedmpi(1, "bench", "structure", *given, code=1)
    fedmpi(1, "bench", "structure", *given, "--rate", 0.25)


def test_cohorts(monkeypatch):
    from fedmpi.bench import server
    lines = []
    monkeypatch.setattr(server, "COHORTS", (2, 4, 8))
    server.cohorts(1, lines.append)
    assert "whatever the cohort" in lines[0]


def test_one_worker_is_one():
    """The bench of Shapley values measures all workers against it."""
    mpirun = find_mpirun()
    if mpirun is None:
        pytest.skip("no mpirun: pip install mpich, or load the cluster's MPI")
    code = """
from fedmpi.run import launch
from fedmpi.bench import shapley

class Idle:
    def run(self, job, arrays):
        return {}, {}

def ranks(connect):
    transport = connect()
    for workers in (transport, shapley.alone(transport)):
        print("worked:", sorted({reply.rank for reply in workers.map([{}] * 40)}))

launch.on_ranks(ranks, Idle, print)
"""
    done = subprocess.run([mpirun, "-n", "3", sys.executable, "-c", code], env=environment(), timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and "worked: [1, 2]" in done.stdout and "worked: [1]" in done.stdout, done.stdout


def test_rounds_of_a_language_model(fedmpi):
    sizes = ("--model", "gpt:depth=1,width=16,heads=2", "--vocab", 64, "--context", 16, "--batch-size", 4,
             "--local-steps", 2, "--clients", 2, "--precision", "float32", "--device", "cpu")
    output = fedmpi(2, "bench", "language", *sizes, "--repeats", 1)
    assert "2 clients of 2 steps, batch 4 x 16 tokens, 1 worker on a CPU" in output
    assert "tokens a second" in output and ratio(output) > 0


def test_large_models_on_a_gpu_at_a_toy_size(tmp_path):
    environ = environment() | {"SIZE": "toy", "OUT": str(tmp_path)}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    done = subprocess.run([ROOT / "jobs/gpu-large.sh"], env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "second round" in (tmp_path / "large.log").read_text()
    assert "tokens a second" in (tmp_path / "medium.log").read_text()
    assert (tmp_path / "sparse.json").exists()
