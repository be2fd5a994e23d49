"""Summaries and final numbers: known values, and every column missing once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_runs import example, judged_run

from fedmpi.core.errors import UserError
from fedmpi.read import report
from fedmpi.store import MemoryStore, read_run


def test_the_summary_has_a_line_for_each_estimator():
    specs = dict(fault=["label-flip:share=0.5", "free-rider"])
    flips, rides = np.arange(4) < 2, np.arange(4) == 3
    run = judged_run(options=specs, noise=[0, 0, 0.5, 0], fault_0=flips, fault_1=rides)
    text = report.summary(run)
    lines = [line.split() for line in text.split("\n")]
    assert ["loo", "(weighs)", "+0.949", "1.000", "0.0333", "0.1414", "0.1000", "+0.800", "11", "0.5"] in lines
    assert ["shapley", "+0.949", "1.000", "-", "-", "-", "-", "11", "0.5"] in lines
    assert ["size", "constant", "0.500", "0.0871", "0.2236", "0.1500", "-", "11", "0.5"] in lines
    assert ["weight", "in", "the", "merge", "+0.949", *"-------"] in lines
    assert "quality   2 bad of 4 clients: 2 label-flip:share=0.5, 1 free-rider, 0 to 50 % of labels wrong" in text
    assert max(map(len, text.split("\n"))) < 120


def test_final_metrics():
    found = report.final_metrics(example())
    assert (found["rounds"], found["chosen_round"], found["sparsity"], found["round_s"]) == (40, 40, 0.9, 2.5)
    assert found["up_bytes"] == 2e8 and found["up_bytes_per_client"] == 1e6 and found["bytes_against_dense"] == 0.1
    assert found["flops_prunefl_against_dense"] == 0.25 and "flops_rigl" not in found


def test_rounds_without_an_evaluation_are_passed_over():
    run = example()
    run.rounds["accuracy"][1::2] = np.nan
    found = report.final_metrics(run)
    assert found["chosen_round"] == 39 and found["final_accuracy"] == run.rounds["accuracy"][38]
    assert [len(x) for _, x, _ in report.curves(run)] == [20, 40]
    run.rounds["accuracy"][:] = np.nan
    assert "accuracy" not in report.summary(run).replace("validation  accuracy", "")
    assert "test" not in report.picture(run)


def test_summary_says_what_was_run_and_what_came_out():
    text = report.summary(example())
    for part in (
        "dataset fashion_mnist, partition dirichlet:alpha=0.5",
        "pruner rigl:sparsity=0.9",
        "running, 40 of 50 rounds, created 2025-01-01",
        "final 0.8939; 0.8939 in round 40, the best by validation",
        "0.9000 of the prunable weights are zero (100 of 1,000 kept)",
        "200 MB in total, 1.00 MB a client and round",
        "0.1000 of what dense",
        "80.0 GFLOP as PruneFL counts, 0.250 of dense",
        "2.5 s a round: train 2, merge 0.25",
        "6 bad of 20 clients: 0 to 80 % of labels wrong",
        "contribution (weighs)    +1.000  1.000",
        "weight in the merge      +1.000      -",
    ):
        assert part in text
    assert "\033" not in text and max(map(len, text.split("\n"))) < 120


COLUMNS = ["round", "accuracy", "loss", "val_accuracy", "sparsity", "up_bytes", "dense_bytes", "flops_prunefl"]
COLUMNS += ["flops_dense", "round_s", "train_s", "client", "contribution", "weight", "noise", "samples"]


@pytest.mark.parametrize("without", [*([c] for c in COLUMNS), COLUMNS], ids=lambda w: w[0] if len(w) == 1 else "all")
def test_any_column_may_be_missing(without, tmp_path):
    run = example(without=without)
    assert "40 of 50 rounds" in report.summary(run)
    assert report.picture(run)
    json.dumps(report.to_json(run), allow_nan=False)
    if len(without) == 1:
        report.save_picture(run, tmp_path / "run.svg")
    else:
        with pytest.raises(UserError, match="nothing to draw"):
            report.save_picture(run, tmp_path / "run.svg")


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_young_run_can_be_looked_at(rounds, tmp_path):
    run = example(rounds=rounds)
    assert f"{rounds} of 50 rounds" in report.summary(run)
    assert ("no round" in report.picture(run)) == (rounds == 0)
    json.dumps(report.to_json(run), allow_nan=False)
    if rounds:
        report.save_picture(run, tmp_path / "run.png")


def test_a_bare_run_can_be_looked_at():
    run = MemoryStore({}, [], [], {}, ([0], [])).run()
    assert report.summary(run) == "status  0 rounds"
    assert report.to_json(run)["final"] == dict(rounds=0)


def test_json_has_null_for_what_is_not_a_number():
    run = example()
    run.rounds["accuracy"][3], run.rounds["loss"][4] = np.nan, np.inf
    told = json.loads(json.dumps(report.to_json(run), allow_nan=False))
    assert told["rounds"]["accuracy"][3] is None and told["rounds"]["loss"][4] is None
    assert told["rounds"]["kept"][0] == [60, 40] and told["options"]["seed"] == 1
    assert told["final"]["quality_auc"] == told["judged"]["contribution"]["auc"] == 1.0
    assert told["attrs"]["status"] == "running"


def test_the_report_needs_neither_torch_nor_a_plotting_library_until_it_draws():
    code = "import sys, fedmpi.read.report; assert not {'torch', 'click', 'matplotlib', 'plotext'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(report.__file__).parents[3])


def test_what_became_of_clients_is_told_and_those_that_do_not_count_do_not_blur_scores(fedmpi, tmp_path):
    from fedmpi.read.report.truth import last_of_client
    out = tmp_path / "late.h5"
    fedmpi(1, "train", "--rounds", 3, "--clients", 12, "--cohort", 6, "--model", "small-cnn:width=4", "--local-epochs",
           1, "--devices", "drawn:dropout=0.4", "--timing", "sync:over=0.5", "--out", out)
    text = fedmpi(1, "show", out)
    run = read_run(out)
    asked, merged, dropped = (int(run.rounds[name].sum()) for name in ("asked", "merged", "dropped"))
    assert f"{merged} of {asked} were merged" in text and f"{dropped} never came" in text and "virtual time" in text
    scores = last_of_client(run, "contribution")
    assert set(np.flatnonzero(np.isfinite(scores))) == set(run.clients["client"][run.clients["outcome"] == 0])
