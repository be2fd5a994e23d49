"""The outcome of a study in words: numbers, means over some of the seeds, runs at chance."""

import math

from fedmpi.study import outcome, outcome_text
from fedmpi.study.outcome_text import number
from fedmpi.study.recipe import Study


def test_numbers_are_written_as_papers_do():
    assert [number(v, "accuracy", True) for v in (0.5, -0.25, 1.0, math.nan)] == ["+.5000", "-.2500", "+1.0000", "-"]
    assert number(10.04, "up_mb") == "10.04"


def test_the_runs_that_never_left_chance_are_counted_by_arm():
    def row(name, learned):
        measures = None if learned is None else {"learned": learned}
        return dict(run=name, arm=name[0], measures=measures)

    # Two places share run a1; b2 has not been played, and the chance of b3 is unknown.
    rows = [row("a1", 0.0), row("a1", 0.0), row("a2", 1.0), row("b1", 0.0), row("b2", None), row("b3", math.nan)]
    status = dict.fromkeys(["a1", "a2", "b1", "b2", "b3"])
    line = outcome_text.stuck(dict(runs=rows, arms=["a", "b"], status=status))
    assert line.startswith("2 of 5 runs never left chance (1 of a, 1 of b)")


def test_a_mean_over_some_of_the_seeds_says_so():
    recipe = {"title": "t", "question": "q", "measures": ["accuracy", "mb_to:0.4"], "pairs": [["a", "b"]]}
    plan = Study("s", "t", recipe, [0, 1, 2], ["a", "b"], {"S": ["1"]}, {}, {})
    values = {"a": [1.0, 2.0, math.nan], "b": [3.0, math.nan, math.nan]}

    def value(arm, cell, seed, name):
        return 0.5 if name == "accuracy" else values[arm][seed]

    findings = recipe | dict(
        name="s",
        size="t",
        lacks=[],
        seeds=[0, 1, 2],
        grid=plan.grid,
        against=None,
        status={},
        complete=True,
        claims=[],
        runs=[],
        arms=plan.arms,
        pairs=outcome._pairs(plan, value),
        cells=outcome._cells(plan, value))
    text = outcome_text.markdown(findings, [])
    assert "| a | 3 | .5000 ± .0000 | 1.50 ± .71 (2 of 3 seeds) |" in text
    assert "| b | 3 | .5000 ± .0000 | 3.00 (1 of 3 seeds) |" in text
    assert "| a - b | all | +.0000 [+.0000, +.0000] | -2.00 (1 of 3 seeds) |" in text
