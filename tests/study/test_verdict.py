"""Verdicts on claims: paired differences, criteria, free factors, runs at chance."""

import pytest
from studies import learning, planned

from fedmpi.read.report.statistics import Interval, interval
from fedmpi.study.verdict import decide, judge, paired


def test_differences_are_paired_by_seed():
    differences = paired({0: 10.0, 1: 20.0, 2: 30.0}, {1: 19.0, 0: 9.0, 3: 7.0})
    assert differences == Interval(2, 1.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("low, mean, high, rule, verdict", [
    (0.01, 0.02, 0.03, dict(above=0), "confirmed"),
    (-0.01, 0.02, 0.05, dict(above=0), "not confirmed"),
    (0.0, 0.02, 0.04, dict(above=0), "not confirmed"),               # 0 itself is not excluded
    (-0.03, -0.02, -0.01, dict(above=0), "refuted"),
    (-0.03, -0.02, -0.01, dict(below=0), "confirmed"),
    (0.01, 0.02, 0.03, dict(below=0), "refuted"),
    (0.01, 0.02, 0.03, dict(above=0, reach=0.03), "not confirmed"),  # right direction, too small
    (0.01, 0.03, 0.05, dict(above=0, reach=0.03), "confirmed"),
    (-1.0, -0.92, -0.84, dict(below=0, reach=-0.9), "confirmed"),
    (-0.9, -0.82, -0.74, dict(below=0, reach=-0.9), "not confirmed"),
    (-0.004, 0.001, 0.006, dict(above=-0.005), "confirmed"),         # no loss, within half a point
    (-0.006, 0.001, 0.008, dict(above=-0.005), "not confirmed")])
def test_a_verdict_follows_from_the_interval_and_the_criterion(low, mean, high, rule, verdict):
    assert decide(Interval(3, mean, 0.1, low, high), 3, **rule)[0] == verdict


def test_a_missing_seed_makes_a_claim_incomplete_and_one_seed_confirms_nothing():
    assert decide(Interval(2, 1, 0, 1, 1), 3, above=0) == ("incomplete", "2 of 3 seeds")
    assert decide(interval([1.0]), 1, above=0)[0] == "not confirmed"
    assert decide(interval([0.0, 0.0]), 2, above=0) == ("not confirmed", "every seed has 0")


def test_a_claim_is_judged_for_each_level_of_its_free_factors():
    def values(arm, cell, seed, name):
        if arm == "b":
            return seed
        gain = 0.1 if cell == ("x", "1") else -0.1
        return seed + gain + seed * 0.001

    claim = dict(
        measure="accuracy", plus=[{"arm": "a"}], minus=[{"arm": "b"}], where={"S": 1}, above=0)
    in_x, in_y = judge(claim, planned(d=["x", "y"], S=["1", "2"]), learning(values))
    assert (in_x["cell"], in_x["verdict"]) == ({"d": "x", "S": "1"}, "confirmed")
    assert (in_y["cell"], in_y["verdict"]) == ({"d": "y", "S": "1"}, "refuted")


def test_a_difference_of_differences_has_four_terms():
    def values(arm, cell, seed, name):
        of_place = {("a", "1"): 5, ("b", "1"): 3, ("a", "2"): 9, ("b", "2"): 4}
        return of_place[arm, cell[0]] + seed * 10

    claim = dict(
        measure="accuracy",
        plus=[{"arm": "a", "S": 2}, {"arm": "b", "S": 1}],
        minus=[{"arm": "b", "S": 2}, {"arm": "a", "S": 1}],
        above=0)
    judged, = judge(claim, planned(S=["1", "2"]), learning(values))
    assert judged["interval"] == Interval(3, 3.0, 0.0, 3.0, 3.0)
    assert judged["verdict"] == "confirmed"


def test_an_arm_or_a_level_that_a_size_lacks_is_not_run():
    claim = dict(measure="accuracy", plus=[{"arm": "c"}], above=0)
    assert judge(claim, planned(S=["1"]), None)[0]["verdict"] == "not run"
    claim = dict(measure="accuracy", plus=[{"arm": "a", "S": 3}], above=0)
    assert judge(claim, planned(S=["1"]), None)[0]["reason"] == "this size has no S 3"


@pytest.mark.parametrize("above, stuck_arms, verdict, reason", [
    (0, ["b"], "confirmed", "in 1 of 3 seeds a run never left chance"),
    (-0.005, ["a", "b"], "not confirmed", "in 1 of 3 seeds no run left chance")])
def test_a_run_that_never_left_chance_is_told(above, stuck_arms, verdict, reason):
    """In seed 0 the arms ``stuck_arms`` learn nothing; both at chance are never a verdict."""
    def values(arm, cell, seed, name):
        is_stuck = seed == 0 and arm in stuck_arms
        if name == "learned":
            return float(not is_stuck)
        if len(stuck_arms) == 2:
            return 0.1
        return float(arm == "a") + seed

    claim = dict(measure="accuracy", plus=[{"arm": "a"}], minus=[{"arm": "b"}], above=above)
    judged, = judge(claim, planned(S=["1"]), values)
    assert (judged["verdict"], judged["reason"]) == (verdict, reason)
