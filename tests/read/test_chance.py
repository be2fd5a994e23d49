"""Runs that have learned nothing."""

import json

import numpy as np
import pytest
from example_runs import run_of

from fedmpi.read import report
from fedmpi.read.report.chance import Stuck, left_chance


def of_classes(counts, accuracy, recorded=True, **options):
    """A run whose test set has that many samples of each class."""
    run = run_of(accuracy, **options)
    run.population["true_labels"] = np.array([counts])
    return run._replace(attrs=run.attrs | ({"inputs": {"test_labels": counts}} if recorded else {}))


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("counts, accuracy, left", [
    ([10] * 10, [0.1, np.nan, 0.12], False), ([10] * 10, [0.1, 0.121], True),
    ([90, 10], [0.9, 0.9], False), ([90, 10], [0.9, 0.92], False), ([90, 10], [0.925], True),
    ([10] * 10, [np.nan], None), ([10] * 10, [], None)])
def test_a_run_has_left_chance_where_it_beats_naming_the_most_frequent_class(counts, accuracy, left, recorded):
    assert left_chance(of_classes(counts, accuracy, recorded)) is left


def test_a_run_that_does_not_tell_its_classes_is_not_judged():
    assert left_chance(run_of([0.1])) is None and report.comparison(report.grouped({"a": run_of([0.1])}))["chance"] == [
        None]


def test_set_ups_that_never_left_chance_are_named():
    runs = {f"{name}{seed}.h5": of_classes([10] * 10, curve, strategy=name, seed=seed)
            for name, curves in {"fedavg": ([0.1, 0.104], [0.1, 0.3]), "krum": ([0.1, 0.4], [0.1, 0.5])}.items()
            for seed, curve in enumerate(curves)}
    found = report.comparison(report.grouped(runs))
    assert found["chance"] == [Stuck(1, 2, 0.104, 0.1), None]
    text = report.comparison_text(found)
    assert "never left chance: fedavg (1 of 2 runs), at best 0.104 where guessing has 0.100" in text
    assert "a difference from a set-up that did not learn says only that it did not learn" in " ".join(text.split())
    assert json.loads(json.dumps(report.plain(report.without_tuples(found))))["chance"][0]["stuck"] == 1
    del runs["fedavg0.h5"]
    assert "never left" not in report.comparison_text(report.comparison(report.grouped(runs)))
