"""Comparisons of two vectors, and numbers of histograms. NaN stands for no answer."""

import math
from typing import NamedTuple

import numpy as np

# The confidence of intervals.
LEVEL = 0.95
# Digits of the largest value: smaller differences come from the same sum in another order.
TIE = 12


def ranks(x):
    """Ranks (n,) float64 from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last_ranks = np.cumsum(counts)
    mean_ranks = last_ranks - (counts - 1) / 2
    return mean_ranks[inverse.reshape(-1)]


def spearman(x, y):
    """Spearman's rank correlation, ties by mean ranks; NaN if one side does not vary or there are
    no pairs."""
    a, b = _centred_ranks(x), _centred_ranks(y)
    norm = math.sqrt(a @ a) * math.sqrt(b @ b)
    # One side is constant.
    if not norm:
        return math.nan
    return float(a @ b) / norm


def _centred_ranks(values):
    values = np.asarray(values)
    return ranks(values) - (len(values) + 1) / 2


def auc(scores, positive):
    """Chance that a positive has a higher score than a negative, a tie counting one half; NaN
    without both kinds."""
    positive = np.asarray(positive, bool)
    num_positive = int(positive.sum())
    num_pairs = num_positive * (len(positive) - num_positive)
    if not num_pairs:
        return math.nan
    rank_sum = ranks(np.asarray(scores))[positive].sum()
    # That of positives below all negatives: what is above counts the pairs that are won.
    least_rank_sum = num_positive * (num_positive + 1) / 2
    return float(rank_sum - least_rank_sum) / num_pairs


def tied(x):
    """``x`` (n,) finite, with differences beyond ``TIE`` digits of its largest value removed."""
    largest = np.max(np.abs(x), initial=0)
    if not largest:
        return x
    return np.round(x / largest, TIE) * largest


class Interval(NamedTuple):
    """Of ``n`` values: mean, standard deviation of the sample, and the interval ``[low, high]`` of
    the mean."""

    n: int
    mean: float
    std: float
    low: float
    high: float


def interval(values, level=LEVEL):
    """Interval of ``values`` (n,), by Student's t with n - 1 degrees of freedom.

    It holds the mean of the population in ``level`` of all samples if values are normal. One value
    has no spread (NaN), none has no mean, and one NaN makes all NaN."""
    values = np.asarray(values, float)
    n = len(values)
    mean = math.nan
    if n:
        mean = float(values.mean())
    if n < 2:
        return Interval(n, mean, math.nan, math.nan, math.nan)
    from scipy.special import stdtrit

    std = float(values.std(ddof=1))
    quantile = float(stdtrit(n - 1, (1 + level) / 2))
    half = quantile * std / math.sqrt(n)
    return Interval(n, mean, std, mean - half, mean + half)


def paired_difference(a, b, level=LEVEL):
    """Interval of ``a - b`` (n,), pair by pair: common causes, such as a seed's data, cancel."""
    differences = np.asarray(a, float) - np.asarray(b, float)
    return interval(differences, level)


def cosine_distance(x, y):
    """1 - the cosine of the angle between the vectors, in [0, 2]; NaN if one is zero."""
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    if not norm:
        return math.nan
    distance = 1 - float(x @ y) / norm
    # Rounding errors may lead beyond the ends.
    return min(max(distance, 0.0), 2.0)


def euclidean_distance(x, y):
    """Euclidean distance of the two vectors, each divided by its sum; NaN if a sum is not
    positive."""
    gap = _gap(x, y)
    return float(np.linalg.norm(gap))


def max_distance(x, y):
    """Largest absolute difference of the two vectors, each divided by its sum; NaN if a sum is not
    positive."""
    gap = _gap(x, y)
    return float(np.abs(gap).max())


def _gap(x, y):
    """(n,) difference of the two vectors, each divided by its sum; (1,) NaN if a sum is not
    positive."""
    x_sum = np.sum(x)
    y_sum = np.sum(y)
    if x_sum > 0 and y_sum > 0:
        return x / x_sum - y / y_sum
    return np.array([math.nan])


def proportions(counts):
    """(N, K) float64: each row of ``counts`` (N, K) divided by its sum; a row of zeros stays
    one."""
    sums = counts.sum(axis=-1, keepdims=True)
    return counts / np.maximum(sums, 1)


def entropy_bits(counts):
    """(...) float64: entropy of each histogram ``counts`` (..., K) in bits, from 0 to log2 K; 0 for
    an empty one."""
    p = proportions(counts)
    # By continuity, 0 log 0 is 0.
    log = np.zeros_like(p)
    np.log2(p, out=log, where=p > 0)
    entropy = -np.sum(p * log, axis=-1)
    # Without -0.0, as of one class alone.
    return np.maximum(entropy, 0)


def total_variation(p, q):
    """(...) float64: half the sum of |p - q| over the last axis; for proportions 0 if equal, 1 if
    disjoint."""
    differences = np.abs(p - q)
    return differences.sum(axis=-1) / 2
