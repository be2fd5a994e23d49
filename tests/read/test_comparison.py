"""Comparisons of groups of runs, in numbers and in words."""

import json
import re

import numpy as np
import pytest
from example_runs import run_of, three_set_ups, two_set_ups, with_failures

from fedmpi.core.errors import UserError
from fedmpi.read import report
from fedmpi.read.report.comparison import spent_text


def test_a_comparison_of_known_numbers():
    found = report.comparison(report.grouped(two_set_ups()))
    assert found["equal"]["rounds"] == {"budgets": [1, 2, 4], "accuracy": [
        [[0.1, 0.2], [0.1, 0.2]], [[0.3, 0.3], [0.2, 0.4]], [[0.6, 0.5], [0.7, 0.7]]]}
    assert found["equal"]["bytes"]["budgets"] == [1000, 2000, 4000]
    assert found["equal"]["bytes"]["accuracy"][2] == [[0.3, 0.3], [0.7, 0.7]]
    assert np.isnan(found["equal"]["bytes"]["accuracy"][0][0]).all()
    assert found["reach"]["accuracy"] == 0.5 and found["reach"]["rounds"] == [[3, 4], [3, 3]]
    assert found["reach"]["bytes"] == [[6000, 8000], [3000, 3000]]
    paired = {each["axis"]: each for each in found["paired"]}
    assert paired["rounds"]["group"] == "B" and paired["rounds"]["seeds"] == [0, 1]
    assert paired["rounds"]["interval"] == pytest.approx(report.paired_difference([0.7, 0.7], [0.6, 0.5]))
    assert "virtual" not in found["equal"] and found["outcomes"]["bytes"][1].mean == 4000


def test_a_comparison_in_words_says_first_what_differs():
    text = report.comparison_text(report.comparison(report.grouped(two_set_ups()), 0.65))
    order = [text.index(part) for part in ("A  fedavg", "what differs", "strategy", "what came of it", "at equal cost",
                                           "to reach a test accuracy of 0.65", "differences of test accuracy")]
    assert order == sorted(order) and "never" in text and "0.550 ± 0.071" in text
    assert re.search(r"B - A +4 rounds +2 +\+0.1500 \[-0.4853, \+0.7853\]", text)
    assert re.search(r"rounds +never +3.5 ± 0.7", text) and max(map(len, text.split("\n"))) < 100


def test_where_some_seeds_never_get_there_it_says_so():
    text = report.comparison_text(report.comparison(report.grouped(two_set_ups()), 0.6))
    assert "4 (1 of 2 seeds)" in text


def test_runs_that_say_nothing_beside_one_another_are_refused():
    runs = {"a.h5": run_of([0.5]), "b.h5": run_of([0.6], dataset="synthetic")}
    with pytest.raises(UserError, match="a.h5 has digits, b.h5 has synthetic; --other-data"):
        report.refuse_other_data(runs)
    report.refuse_other_data({"a.h5": run_of([0.5]), "b.h5": run_of([0.6], partition="iid", noise="none")})


@pytest.mark.parametrize("curves", [([], [0.1]), ([np.nan], [0.1]), ([0.004], [0.1])])
def test_young_runs_are_compared_as_far_as_they_are(curves):
    runs = {f"{number}.h5": run_of(curve, lr=number + 0.5, status="running") for number, curve in enumerate(curves)}
    groups = report.grouped(runs)
    found = report.comparison(groups)
    assert "not the end: still running, or killed, after" in report.comparison_text(found) and found["paired"] == []
    json.dumps(report.plain(report.without_tuples(found)), allow_nan=False)
    assert report.curves_picture(groups)


def test_runs_that_failed_take_nothing_from_the_others():
    groups = report.grouped(with_failures())
    assert [group.label for group in groups] == ["lr 0.1", "lr 0.5", "lr 0.9"]       # what cannot be drawn is last
    found = report.comparison(groups)
    text = report.comparison_text(found)
    assert "not the end: failed, b2.h5 after 1 rounds" in text and "not the end: failed, after 0 rounds" in text
    assert re.search(r"final accuracy +0.500 ± 0.100 +0.800 ± 0.141 \(2 of 3 seeds\) +-\n", text)
    assert re.search(r"2 rounds +0.500 ± 0.100 +0.800 ± 0.141 \(2 of 3 seeds\) +-\n", text)
    paired = {(each["group"], each["axis"]): each for each in found["paired"]}
    assert paired["B", "rounds"]["seeds"] == [0, 1] and not any(group == "C" for group, _ in paired)
    assert paired["B", "rounds"]["interval"].mean == pytest.approx(0.25)
    drawn = report.PICTURES["accuracy"].find(groups)
    assert [line.label for line in drawn.lines] == ["lr 0.1", "lr 0.5"]
    np.testing.assert_allclose([line.y for line in drawn.lines], [[0.2, 0.5], [0.15, 0.8]])
    assert report.curves_picture(groups).count("B") > 1 and "nan" not in text


def pairs_of(found):
    return [(each["group"], each["against"]) for each in found["paired"] if each["axis"] == "rounds"]


def test_all_are_held_against_the_baseline_or_every_two_against_one_another():
    groups = report.grouped(three_set_ups())
    assert pairs_of(report.comparison(groups)) == [("B", "A"), ("C", "A")]
    assert pairs_of(report.comparison(groups, against=1)) == [("A", "B"), ("C", "B")]
    assert pairs_of(report.comparison(groups, every_pair=True)) == [("B", "A"), ("C", "A"), ("C", "B")]
    turned, = (each["interval"] for each in report.comparison(groups, against=1)["paired"]
               if each["group"] == "C" and each["axis"] == "rounds")
    assert turned == pytest.approx(report.paired_difference([0.3, 0.4], [0.7, 0.7]))


def test_one_round_is_no_rounds():
    assert spent_text("rounds", 1.0) == "1 round" and spent_text("rounds", 2.0) == "2 rounds"
