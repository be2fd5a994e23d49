"""The findings of a study: the time left, pairs of arms."""

import pytest
from studies import RECIPE, planned, read

from fedmpi.core.errors import UserError
from fedmpi.study import outcome
from fedmpi.study.outcome import seconds_left
from fedmpi.study.recipe import Study


def test_the_time_left_is_that_of_the_nearest_runs():
    runs = {(arm, ("1",), seed): f"{arm}{seed}" for arm in "ab" for seed in (0, 1, 2)}
    options = dict.fromkeys(runs.values(), {"rounds": 10})
    plan = planned(S=["1"])._replace(runs=runs, options=options)
    states = dict.fromkeys(runs.values(), ("missing", 0, 0.0))
    assert seconds_left(plan, states) is None
    states["a0"] = ("finished", 10, 20.0)
    states["a1"] = ("finished", 10, 3000.0)
    states["a2"] = ("running", 5, 15.0)
    # The median of 2, 300 and 3 seconds a round, for 5 rounds of arm a and 30 of arm b.
    assert seconds_left(plan, states) == 5 * 3 + 30 * 3
    states["b0"] = ("finished", 10, 1.0)
    assert seconds_left(plan, states) == pytest.approx(5 * 3 + 20 * 0.1)


def test_a_study_may_ask_for_every_pair_of_arms(tmp_path):
    asked = read(RECIPE.replace("[fixed]", 'pairs = "all"\n[fixed]', 1), tmp_path)
    plan = Study("s", "t", asked, [0, 1], ["a", "b", "c"], {}, {}, {})
    pairs = outcome._pairs(plan, lambda arm, cell, seed, name: seed + "abc".index(arm))
    means = {(pair["arm"], pair["against"]): pair["difference"]["accuracy"]["mean"] for pair in pairs}
    assert means == {("b", "a"): 1.0, ("c", "a"): 2.0, ("c", "b"): 1.0}
    with pytest.raises(UserError, match='pairs must be "all", or a list of pairs, got \'every\''):
        read(RECIPE.replace("[fixed]", 'pairs = "every"\n[fixed]', 1), tmp_path)
