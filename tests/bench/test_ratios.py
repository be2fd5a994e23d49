"""Ratios of a measurement's two sides, and their summary."""

from fedmpi.bench.ratios import ratios, spread, summary


def test_ratios_are_taken_turn_by_turn():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_a_summary_is_the_median_the_least_and_the_largest():
    assert summary([3.0, 1.0, 8.0]) == (3.0, 1.0, 8.0)


def test_a_spread_has_three_decimals_and_the_count():
    assert spread([1.0, 1.5, 1.25]) == "1.250 (of 3: 1.000 to 1.500)"
