"""The plan of a run: its bytes and FLOPs are those of the run, nothing is written, what was scaled is said."""

import math
import os
import time

import pytest
import torch

from fedmpi.run import plan
from fedmpi.build.options import DEFAULTS
from fedmpi.store import read_run

OPTIONS = {"dataset": "synthetic:samples=500", "model": "logistic", "clients": 6, "local_epochs": 1, "rounds": 2}


def arguments(**more):
    return [str(text) for key, value in (OPTIONS | more).items() for text in (f"--{key.replace('_', '-')}", value)]


@pytest.mark.parametrize("more", [{}, {"strategy": "prunefl", "codec": "int8", "cohort": 3},
                                  {"devices": "drawn", "timing": "fedbuff:buffer=2", "strategy": "fedavg",
                                   "cohort": 2},
                                  {"devices": "drawn", "timing": "sync:over=0.5", "cohort": 3}])
def test_bytes_and_flops_are_those_of_the_run(fedmpi, tmp_path, more):
    found = plan.played(DEFAULTS | OPTIONS | more, print)[-1]
    fedmpi(1, "train", *arguments(**more), "--out", tmp_path / "run.h5")
    rounds = read_run(tmp_path / "run.h5").rounds
    assert found.exact and found.asked == rounds["asked"][1]
    assert [found.down_bytes, found.up_bytes, found.first_down_bytes, found.kept] == [
        rounds["down_bytes"][1], rounds["up_bytes"][1], rounds["down_bytes"][0], rounds["kept"][1]]
    assert found.flops["rigl"] == pytest.approx(rounds["flops_rigl"][1])


def test_what_takes_too_long_is_played_in_part_and_scaled(monkeypatch):
    options = DEFAULTS | OPTIONS | {"batch_size": 5, "partition": "iid"}
    whole = plan.played(options, print)[-1]
    monkeypatch.setattr(plan, "LIMIT_S", 0.0)
    *known, part = plan.played(options, print)
    assert not part.exact and part.played.clients == plan.FEW and part.played.cut and part.asked == whole.asked
    for name in ("down_bytes", "up_bytes", "dense_bytes"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name), rel=0.02)
    assert part.flops["dense"] == pytest.approx(whole.flops["dense"], rel=0.02)
    assert any("2 of 6 clients of 20 samples each, scaled" in line for line in plan.plan_lines(*known, part, 1, "a.h5"))


class Slow(torch.nn.Linear):
    """A network whose training steps take a while."""

    def __init__(self, shape, classes):
        super().__init__(math.prod(shape), classes)

    def forward(self, x):
        time.sleep(0.02 if self.training else 0)
        return super().forward(x.flatten(1))


def test_time_that_is_over_in_a_clients_training_is_no_failure_of_the_client(monkeypatch):
    options = DEFAULTS | OPTIONS | {"model": "test_plan:Slow", "pruner": "dense", "batch_size": 5, "partition": "iid"}
    monkeypatch.setattr(plan, "LIMIT_S", 0.7)          # after the first try, and in the middle of the second
    found = plan.played(options, print)[-1]
    assert not found.exact


@pytest.mark.parametrize("timing", ["fedbuff:buffer=2", "fedasync"])
def test_training_that_asynchronous_rounds_did_before_is_part_of_the_time(timing):
    options = DEFAULTS | OPTIONS | {"devices": "drawn", "timing": timing, "strategy": "fedavg", "cohort": 3}
    found = plan.played(options, print)[-1]
    assert found.round_s > found.shared_s >= found.played.trained_s > 0


@pytest.mark.parametrize("pruner, said", [("rigl:every=2", True), ("rigl:every=3", False)])
def test_a_round_that_moved_the_mask_is_said_to_take_more(pruner, said):
    *known, found = plan.played(DEFAULTS | OPTIONS | {"rounds": 6, "pruner": pruner}, print)
    assert any("which moved the mask" in line for line in plan.plan_lines(*known, found, 1, "a.h5")) == said


def test_a_dry_run_prints_a_plan_and_writes_nothing(fedmpi, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = fedmpi(1, "train", *arguments(), "--dry-run", "--fault", "scaled:share=0")
    for text in ("6 with", "mpirun -n 7 would be", "650 parameters", "sparsity 0.8", "dense float32 both ways",
                 "memory         about", "RigL's convention", "time a round", "for 2 rounds", "played whole",
                 "writes         runs/",
                 "warning: --fault scaled:share=0 hits none"):
        assert text in output
    assert os.listdir(tmp_path) == []


def test_a_dry_run_under_mpirun_plans_its_ranks(fedmpi, tmp_path):
    output = fedmpi(3, "train", *arguments(), "--dry-run", "--out", tmp_path / "run.h5")
    assert output.count("time in all") == 1 and "3: 2 workers, 3 clients each at most" in output
    assert "on 3 ranks" in output
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("wrong, line", [(["--cohort", 9], "--cohort must be between 1 and the 6"),
                                         (["--resume", "a.h5"], "no place beside --resume"),
                                         (["--pruner", "rigel"], "did you mean rigl"),
                                         (["--out", "/dev/null"], "exists, and is not replaced"),
                                         (["--out", "no/such/a.h5"], "there is no folder")])
def test_a_dry_run_refuses_what_train_refuses(fedmpi, wrong, line):
    output = fedmpi(1, "train", *arguments(), "--dry-run", *wrong, code=2)
    assert line in output and len(output.splitlines()) == 1


def test_a_server_without_a_model_to_evaluate_has_a_time_all_the_same():
    options = DEFAULTS | OPTIONS | {"strategy": "fedpcl", "model": "2nn:hidden=4", "partition": "iid"}
    found = plan.played(options, print)[-1]
    assert math.isfinite(found.round_s) and found.round_s > 0
