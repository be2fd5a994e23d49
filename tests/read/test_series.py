"""Curves against cost, and what a budget buys."""

import numpy as np
import pytest
from example_runs import run_of

from fedmpi.read import report
from fedmpi.read.report.series import mean_lines, prefix, spent, to_reach, within


def test_what_a_budget_buys_is_the_last_value_known_then():
    run = run_of([0.1, 0.4, np.nan, 0.3, 0.6])
    assert spent(run, "bytes").tolist() == [2000, 4000, 6000, 8000, 10000] and spent(run, "virtual") is None
    assert [within(run, "bytes", budget) for budget in (2000, 3999, 4000, 7999, 8000)] == [0.1, 0.1, 0.4, 0.4, 0.3]
    assert np.isnan(within(run, "bytes", 1999))
    assert [to_reach(run, axis, 0.4) for axis in ("rounds", "bytes", "flops")] == [2, 4000, 1e10]
    assert to_reach(run, "rounds", 0.5) == 5 and np.isnan(to_reach(run, "rounds", 0.61))


def test_a_line_of_several_seeds_is_their_mean_where_all_were_evaluated():
    runs = {"a": run_of([0.1, np.nan, 0.5, 0.9], seed=0), "b": run_of([0.3, 0.4, 0.7], sent=2000, seed=1, rounds=4)}
    line, = mean_lines(report.grouped(runs), "accuracy", "bytes")
    assert line.x.tolist() == [3000, 9000]
    np.testing.assert_allclose([line.y, line.low, line.high], [[0.2, 0.6], [0.1, 0.5], [0.3, 0.7]])


@pytest.mark.parametrize("number, unit", [(0, ""), (999, ""), (1000, "k"), (2.5e7, "M"), (1e30, "E")])
def test_prefixes(number, unit):
    assert prefix(number)[1] == unit
