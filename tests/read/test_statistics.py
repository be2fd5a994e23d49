"""Statistics: known values of correlations, distances and intervals."""

import numpy as np
import pytest
from scipy import stats

from fedmpi.read import report


def test_ranks_share_ties():
    assert report.ranks(np.array([10, 30, 20, 20])).tolist() == [1, 4, 2.5, 2.5]


@pytest.mark.parametrize(
    "x, y, expected",
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 * 4 / (5 * 24)
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / np.sqrt(4.5 * 5)),
        ([1, 1, 1], [1, 2, 3], np.nan),
        ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),
    ],
)
def test_spearman_known_values(x, y, expected):
    np.testing.assert_allclose(report.spearman(x, y), expected, atol=1e-15)


@pytest.mark.parametrize(
    "scores, positive, expected",
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0.0),
        ([1, 3, 2, 4], [0, 0, 1, 1], 0.75),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
        ([5, 5, 5], [0, 1, 1], 0.5),
        ([1, 2], [1, 1], np.nan),
    ],
)
def test_auc_known_values(scores, positive, expected):
    np.testing.assert_equal(report.auc(scores, positive), expected)


def test_auc_counts_pairs():
    gen = np.random.default_rng(0)
    scores, positive = gen.integers(0, 6, 40), gen.random(40) < 0.4
    pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    assert report.auc(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-15)


@pytest.mark.parametrize("name, x, y, expected", [
    ("cosine_distance", [1, 0], [0, 2], 1.0), ("cosine_distance", [1, 1], [-2, -2], 2.0),
    ("cosine_distance", [1, 2], [2, 4], 0.0), ("cosine_distance", [0, 0], [1, 2], np.nan),
    ("euclidean_distance", [1, 3], [30, 10], np.sqrt(0.5)), ("euclidean_distance", [-1, 1], [1, 2], np.nan),
    ("max_distance", [1, 3], [30, 10], 0.5), ("max_distance", [1, 2], [-1, -2], np.nan),
    ("max_distance", [], [], np.nan),
    ("total_variation", [0.5, 0.5, 0], [0, 0.5, 0.5], 0.5), ("entropy_bits", [2, 2, 0, 4], None, 1.5),
    ("entropy_bits", [0, 0], None, 0.0), ("entropy_bits", [9, 0], None, 0.0)])
def test_distances_known_values(name, x, y, expected):
    arguments = [np.array(v, float) for v in (x, y) if v is not None]
    np.testing.assert_allclose(getattr(report, name)(*arguments), expected, atol=1e-15)


def test_intervals_are_students():
    gen = np.random.default_rng(0)
    x, y = gen.normal(1, 2, 7), gen.normal(0, 1, 7)
    found = report.paired_difference(x, y)
    low, high = stats.ttest_rel(x, y).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high, found.mean, found.std],
                               [low, high, np.mean(x - y), np.std(x - y, ddof=1)])
    assert found.n == 7 and report.interval([1, 2, 3]).mean == 2
    one, none = report.interval([4]), report.interval([])
    assert one.mean == 4 and np.isnan([one.std, one.low, none.mean]).all() and none.n == 0
    assert np.isnan(report.interval([1, np.nan]).mean)
