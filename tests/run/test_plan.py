"""The plan of a run: its bytes and FLOPs are those of the run, nothing is written, what was scaled is said."""

import math
import os
import time

import pytest
import torch

from fedmpi.run import plan
from fedmpi.build.options import DEFAULTS
from fedmpi.core.errors import UserError
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


def test_a_model_that_will_not_fit_is_refused_before_any_round(monkeypatch):
    from fedmpi.transport import place
    options = DEFAULTS | OPTIONS | {"model": "fedmpi.bench.given:given:weights=5e6", "pruner": "dense",
                                    "strategy": "fedavg", "contribution": "size"}
    monkeypatch.setattr(place, "memory_bytes", lambda: 50_000_000)
    with pytest.raises(UserError, match=r"0.1 GB of memory left, its 3 ranks need .*2 workers .* rank 0 .* shared "
                                        ".*fewer ranks") as refused:
        plan.played(options, print, 3)
    assert "\n" not in str(refused.value)


def test_a_small_model_is_warned_of_only(monkeypatch):
    from fedmpi.transport import place
    monkeypatch.setattr(place, "memory_bytes", lambda: 1000)
    lines = []
    plan.played(DEFAULTS | OPTIONS, lines.append)
    assert "may need" in lines[0] and len(lines) == 1


def vectors_of(**options):
    from fedmpi.build.needs import vectors_of
    from fedmpi.laws.engine import small
    return vectors_of(small(**options))


def test_vectors_are_counted_by_purpose():
    from fedmpi.build.vectors import Run, held
    run = Run(P=1 << 23, kept_frac=1.0, moments=2, kept=0, inner=0, memories=0, server=1, sent=0, answers=0,
              sums=True, in_pieces=True, singles=False, cohort=2)
    assert held(run) == ({"model": 4, "gradient": 4, "optimiser": 8},
                         {"model": 12, "strategy": 12}, {"messages": 8.0, "sums": 8.0})
    single = held(run._replace(sums=False, singles=True, server=0))
    assert single.node == {"messages": 8.0} and single.server["updates"] == 4 * 5
    sparse = held(run._replace(kept_frac=0.25))
    assert sparse.worker["masks"] == 7 and sparse.node == {"messages": 2.0, "received model": 4, "sums": 2.0}
    small = held(run._replace(P=1000))
    assert small.node == {} and sum(small.worker.values()) == 32
    resumed = held(run._replace(inner=2, memories=4))
    assert resumed.worker == held(run).worker and resumed.server["clients' states"] == 4 * (4 + 8)
    scaffold = held(run._replace(kept=1, memories=2, sent=1, answers=1, in_pieces=False))
    assert scaffold.worker["clients' states"] == 12 and scaffold.worker["strategy"] == 4 * (2 + 2)
    assert scaffold.server["updates"] == 24


@pytest.mark.parametrize("options, server, moments", [
    ({"strategy": "fedavg", "optimiser": "sgd"}, 0, 0), ({"strategy": "fedavg", "optimiser": "adamw"}, 0, 2),
    ({"strategy": "diloco"}, 1, 1), ({"strategy": "fedadam", "optimiser": "adamw"}, 2, 2)])
def test_vectors_of_strategies_and_optimisers_are_counted(options, server, moments):
    held = vectors_of(**{"optimiser": "sgd:momentum=0.9"} | options)
    assert held.server.get("strategy", 0) == 12 * server and held.worker.get("optimiser", 0) == 4 * moments


def test_every_strategys_vectors_can_be_counted_without_memory():
    from fedmpi import catalog
    from fedmpi.build.needs import _server_vectors
    from fedmpi.laws.engine import small
    run = small().run
    for name in catalog.STRATEGIES:
        from fedmpi.plugins.spec import make
        assert _server_vectors(run._replace(strategy=make(catalog.STRATEGIES, name))) >= 0
