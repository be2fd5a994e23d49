"""Numbers that compare two vectors, and numbers of histograms. NaN stands for no answer."""

import math
from typing import NamedTuple

import numpy as np

LEVEL = 0.95                      # of intervals
# Digits of the largest value: smaller differences come from the same sum in another order.
TIE = 12


def ranks(x):
    """Ranks (n,) float64 from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[inverse.reshape(-1)]


def spearman(x, y):
    """Spearman's rank correlation, ties by mean ranks; NaN if one side does not vary or there are
    no pairs."""
    a, b = _centred_ranks(x), _centred_ranks(y)
    norm = math.sqrt(a @ a) * math.sqrt(b @ b)
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
    num, other = int(positive.sum()), int((~positive).sum())
    if not num or not other:
        return math.nan
    rank_sum = ranks(np.asarray(scores))[positive].sum()
    least_rank_sum = num * (num + 1) / 2
    return float(rank_sum - least_rank_sum) / (num * other)


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
    return interval(np.asarray(a, float) - np.asarray(b, float), level)


def cosine_distance(x, y):
    """1 - the cosine of the angle between the vectors, in [0, 2]; NaN if one is zero."""
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    if not norm:
        return math.nan
    distance = 1 - float(x @ y) / norm
    return min(max(distance, 0.0), 2.0)


def euclidean_distance(x, y):
    """Euclidean distance of the two vectors, each divided by its sum; NaN if a sum is not
    positive."""
    return float(np.linalg.norm(_gap(x, y)))


def max_distance(x, y):
    """Largest absolute difference of the two vectors, each divided by its sum; NaN if a sum is not
    positive."""
    return float(np.abs(_gap(x, y)).max())


def _gap(x, y):
    """(n,) difference of the two vectors, each divided by its sum; (1,) NaN if a sum is not
    positive."""
    a, b = np.sum(x), np.sum(y)
    if a > 0 and b > 0:
        return x / a - y / b
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
    log = np.log2(p, out=np.zeros_like(p), where=p > 0)
    entropy = -np.sum(p * log, axis=-1)
    return np.maximum(entropy, 0)


def total_variation(p, q):
    """(...) float64: half the sum of |p - q| over the last axis; for proportions 0 if equal, 1 if
    disjoint."""
    return np.abs(p - q).sum(axis=-1) / 2
