"""Several ranks a client: the same bits for a number of them, near those of one; no end without a word."""

import os
import re
import signal

import numpy as np
import pytest
from test_killing import Job

from fedmpi.store import read_run, verify

# All ranks take jobs, however few the cores.
ALL = {"FEDMPI_ALL_RANKS": "1"}
TOKENS = ("--task", "lm", "--dataset", "markov:tokens=4000,context=16", "--model",
          "gpt:depth=1,width=16,heads=2,tied=true")
IMAGES = ("--local-epochs", 1, "--train-samples", 200, "--model", "small-cnn:width=4", "--partition",
          "dirichlet:beta=0.5")
COMMON = ("--clients", 5, "--cohort", 4, "--rounds", 3, "--device", "cpu", "--noise", "none")
# {run: (ranks a client, options)}.
RUNS = {
    # A kept AdamW, batches in parts, shortened gradients, a schedule over steps.
    "diloco": (2, (*TOKENS, "--strategy", "diloco", "--optimiser", "adamw:weight_decay=0.1", "--lr", 0.01,
                   "--local-steps", 5, "--batch-size", 9, "--accumulate", 2, "--clip-norm", 0.5,
                   "--schedule", "cosine:warmup=3,over=run")),
    # A mask that moves by the clients' gradients, a pull, batches too small for all members at an epoch's end.
    "rigl": (3, (*IMAGES, "--strategy", "fedprox:mu=0.1", "--pruner", "rigl:every=2,sparsity=0.5", "--optimiser",
                 "sgd:momentum=0.9", "--batch-size", 8, "--codec", "int8:feedback=true", "--augment", "crop",
                 "--fault", "sign-flip:share=0.2", "--contribution", "cosine", "--client-test", 0.3)),
    # A shift of every gradient, sums on workers.
    "scaffold": (2, (*IMAGES, "--strategy", "scaffold", "--pruner", "static:sparsity=0.5", "--optimiser", "sgd",
                     "--batch-size", 8)),
}
BROKEN = '''
import os

import torch

class Net(torch.nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.out = torch.nn.Linear(features, classes)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == 12 and os.environ.get("PMI_RANK") == BROKEN_RANK:
            raise RuntimeError("boom in the forward pass")
        return self.out(x.flatten(1))

def net(shape, classes):
    return Net(64, classes)
'''


@pytest.mark.parametrize("name", RUNS)
def test_any_number_of_groups_has_the_same_bits_near_those_of_one_rank(fedmpi, tmp_path, name):
    size, options = RUNS[name]
    alone, one, two = (tmp_path / f"{kind}.h5" for kind in ("alone", "one", "two"))
    options = ("train", *COMMON, *options)
    fedmpi(1, *options, "--out", alone)
    divided = (*options, "--ranks-per-client", size)
    fedmpi(1 + size, *divided, "--out", one, "--until", 2)
    fedmpi(1 + 2 * size, *divided, "--out", two, **ALL)
    # One group goes on where one group was.
    fedmpi(1 + size, "train", "--resume", one)
    assert verify(one, two) == []

    apart, together = read_run(alone).rounds, read_run(one).rounds
    for column in ("up_bytes", "down_bytes", "flops_rigl", "asked"):
        assert np.array_equal(apart[column], together[column]), column
    for column in ("loss", "train_loss"):
        assert np.allclose(apart[column], together[column], rtol=1e-4), column


def test_groups_lie_on_nodes(fedmpi, tmp_path):
    """MPICH can take one machine for several nodes, its ranks dealt out round robin."""
    size, options = RUNS["scaffold"]
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    options = ("train", *COMMON, *options, "--ranks-per-client", size, "--rounds", 1)
    fedmpi(3, *options, "--out", one)
    fedmpi(7, *options, "--out", two, **ALL, MPIR_CVAR_NUM_CLIQUES="3")
    assert verify(one, two) == []


@pytest.mark.parametrize("rank", [1, 2])
def test_an_exception_of_any_member_ends_the_run_with_its_traceback(fedmpi, tmp_path, rank):
    (tmp_path / "broken_model.py").write_text(BROKEN.replace("BROKEN_RANK", f'"{rank}"'))
    output = fedmpi(3, "train", *COMMON, "--model", "broken_model:net", "--strategy", "fedavg", "--ranks-per-client", 2,
                    "--out", tmp_path / "run.h5", code=1, timeout=60, PYTHONPATH=str(tmp_path))
    assert output.count("RuntimeError: boom in the forward pass") == 1
    assert f"error on rank {rank}:" in output
    attrs = read_run(tmp_path / "run.h5").attrs
    assert attrs["status"] == "failed" and attrs["error"] == "RuntimeError: boom in the forward pass"


@pytest.mark.parametrize("rank, number, line", [
    (2, signal.SIGKILL, ""),
    (1, signal.SIGKILL, ""),
    (2, signal.SIGSTOP, r"error: rank 2 on \S+ has been silent for \d+ s, last known work: client \d in round \d+")])
def test_a_member_that_dies_or_halts_ends_the_run_and_it_goes_on(command, fedmpi, tmp_path, rank, number, line):
    size, options = RUNS["scaffold"]
    options = (*COMMON, *options, "--rounds", 5000, "--ranks-per-client", size)
    out, whole = tmp_path / "run.h5", tmp_path / "whole.h5"
    job = Job(command(3, "train", *options, "--out", out, "--silence", 3), tmp_path)
    job.wait_for(r"^round +4/")
    pids = job.ranks(3)
    os.kill(pids[rank], number)
    assert job.ended(60) < 30 and job.process.returncode
    if line:
        assert re.search(line, job.output(), re.M), job.output()
    last = len(read_run(out).rounds["round"]) + 2
    fedmpi(3, "train", *options, "--out", whole, "--until", last)
    fedmpi(3, "train", "--resume", out, "--until", last)
    assert verify(whole, out) == []


@pytest.mark.parametrize("ranks, message", [
    (1, "groups of 2 workers are needed, got 1 rank; start mpirun -n 3, say"),
    (4, "groups of 2 workers are needed, got 4 ranks; start mpirun -n 3, say")])
def test_ranks_that_make_no_groups_are_refused_in_one_line(fedmpi, tmp_path, ranks, message):
    output = fedmpi(ranks, "train", *COMMON, "--ranks-per-client", 2, "--out", tmp_path / "run.h5", code=2)
    assert message in output and output.count("error:") == 1
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.parametrize("arguments, message", [
    (("--strategy", "fedpcl", "--partition", "classes"), "has a way of training of its own"),
    (("--pruner", "feddst", "--strategy", "feddst"), "--pruner feddst watches the steps"),
    (("--pruner", "feddst:block=4", "--strategy", "feddst"), "--pruner feddst:block=4 watches the steps"),
    (("--pruner", "prunefl"), "--pruner prunefl watches the steps"),
    (("--on-error", "drop"), "take fatal"),
    (("--optimiser", "adamw:fresh=median"), "leave fresh out"),
    (("--together", 2), "--together 2 trains clients side by side, but each of them trains on several ranks"),
    (("--batch-size", 4, "--accumulate", 4), "--batch-size 4 and --accumulate 4 leave no sample"),
    (("--model", "torchvision:name=resnet18"), "batch normalisation would see a part of each batch alone")])
def test_a_run_that_cannot_be_divided_is_refused_in_one_line(fedmpi, arguments, message):
    options = ("--ranks-per-client", 2, "--strategy", "fedavg", *arguments, "--dry-run")
    output = fedmpi(1, "train", *COMMON, *options, code=2)
    assert message in output and output.count("error:") == 1


def test_another_number_of_ranks_a_client_is_another_run(fedmpi, tmp_path):
    options = ("train", *COMMON, *RUNS["scaffold"][1], "--out", tmp_path / "run.h5", "--until", 1)
    fedmpi(1, *options)
    output = fedmpi(3, "train", "--resume", tmp_path / "run.h5", "--ranks-per-client", 2, code=2)
    assert "--ranks-per-client 2 (the run has 1)" in output


def test_the_plan_tells_ranks_groups_and_memory(fedmpi):
    output = fedmpi(1, "train", *COMMON, *RUNS["diloco"][1], "--ranks-per-client", 2, "--dry-run")
    text = " ".join(output.split())
    assert "mpirun -n 9 would be 2 workers a client" in text
    assert "2, each with the whole model and 1/2 of each batch" in text
