"""The best round is the one that validation selects."""

import numpy as np
from example_runs import run_of

from fedmpi.read import report
from fedmpi.read.report import live
from fedmpi.read.report.page import page


def test_the_best_round_is_selected_by_validation_and_not_by_the_test_set():
    run = run_of([0.3, 0.9, 0.5, 0.4])
    assert "chosen_accuracy" not in report.final_metrics(run)
    run.rounds["val_accuracy"] = np.array([0.2, 0.3, 0.6, np.nan])
    assert report.final_metrics(run)["chosen_accuracy"] == 0.5
    other = run_of([0.1], lr=0.5)
    found = report.comparison(report.grouped({"a.h5": run, "b.h5": other}))["outcomes"]
    assert found["chosen_accuracy"][0].mean == 0.5 and found["chosen_accuracy"][1] is None
    assert "best_accuracy" not in found


def test_every_reader_calls_the_same_round_the_best_whatever_the_test_set_says():
    run = run_of([0.3, 0.9, 0.5, 0.4])                    # the test set's own maximum is of round 2
    run.rounds["val_accuracy"] = np.array([0.2, 0.3, 0.6, 0.1])
    groups = report.grouped({"a.h5": run})
    accuracy = report.PICTURES["accuracy"]
    told = {"summary": report.summary(run), "json": str(report.to_json(run)["final"]),
            "watch": live.board({"a.h5": run}, (), 200, 5), "page": page({"a.h5": run}),
            "plot": accuracy.say(accuracy.find(groups))}
    assert "final 0.4000; 0.5000 in round 3, the best by validation" in told["summary"]
    assert "'chosen_accuracy': 0.5, 'chosen_round': 3" in told["json"]
    assert live.table({"a.h5": run})[1].split()[3:6] == ["-", "0.4000", "0.5000"]
    assert "0.500 in round 3, the best by validation" in told["page"]
    assert "test: best by validation 0.5 at round 3, then 0.4 at round 4; validation: best by validation 0.6 at" in (
        told["plot"])
    for reader in ("summary", "json", "watch"):
        assert "0.9" not in told[reader], reader


def test_without_validation_samples_no_round_is_called_the_best():
    run = run_of([0.3, 0.9, 0.5, 0.4])
    assert "final 0.4000 (without validation samples no round can be called the best)" in report.summary(run)
    assert live.table({"a.h5": run})[1].split()[4:6] == ["0.4000", "-"]
    assert "after the last round" in page({"a.h5": run})
    accuracy = report.PICTURES["accuracy"]
    said = accuracy.say(accuracy.find(report.grouped({"a.h5": run})))
    assert said == "Test accuracy by round. The test set's own maximum 0.9 at round 2, then 0.4 at round 4."
    assert not any("best" in key for key in report.final_metrics(run))
