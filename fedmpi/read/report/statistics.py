"""Numbers that compare two vectors, and how unequal a histogram is. NaN where there is no answer."""

import math
from typing import NamedTuple

import numpy as np

LEVEL = 0.95                      # of intervals
TIE = 12                          # digits of the largest value: what differs less is the same sum in another order


def ranks(x):
    """Ranks (n,) float64 from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]


def spearman(x, y):
    """Spearman's rank correlation, ties by mean ranks; NaN if one side does not vary or there are no pairs."""
    a, b = (ranks(v) - (len(v) + 1) / 2 for v in (np.asarray(x), np.asarray(y)))
    norm = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(a @ b) / norm if norm else math.nan


def auc(scores, positive):
    """Chance that a positive has a higher score than a negative, a tie counting one half; NaN without both kinds."""
    positive = np.asarray(positive, bool)
    num, other = int(positive.sum()), int((~positive).sum())
    if not num or not other:
        return math.nan
    return float(ranks(np.asarray(scores))[positive].sum() - num * (num + 1) / 2) / (num * other)


def tied(x):
    """``x`` (n,) finite, with differences beyond ``TIE`` digits of its largest value removed."""
    largest = np.max(np.abs(x), initial=0)
    return np.round(x / largest, TIE) * largest if largest else x


class Interval(NamedTuple):
    """Of ``n`` values: mean, standard deviation of the sample, and the interval ``[low, high]`` that holds the mean."""

    n: int
    mean: float
    std: float
    low: float
    high: float


def interval(values, level=LEVEL):
    """Interval of ``values`` (n,), by Student's t with n - 1 degrees of freedom: it holds the mean of the population in
    ``level`` of all samples where values are normal. One value has no spread (NaN), none has no mean, and one that is
    NaN makes all NaN."""
    values = np.asarray(values, float)
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < 2:
        return Interval(n, mean, math.nan, math.nan, math.nan)
    from scipy.special import stdtrit

    std = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / math.sqrt(n)
    return Interval(n, mean, std, mean - half, mean + half)


def paired_difference(a, b, level=LEVEL):
    """Interval of ``a - b`` (n,), pair by pair: what pairs share, such as a seed's data, cancels."""
    return interval(np.asarray(a, float) - np.asarray(b, float), level)


def cosine_distance(x, y):
    """1 - the cosine of the angle between the vectors, in [0, 2]; NaN where one is zero."""
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return min(max(1 - float(x @ y) / norm, 0.0), 2.0) if norm else math.nan


def euclidean_distance(x, y):
    """Euclidean distance of the two vectors, each divided by its sum; NaN where a sum is not positive."""
    return float(np.linalg.norm(_gap(x, y)))


def max_distance(x, y):
    """Largest absolute difference of the two vectors, each divided by its sum; NaN where a sum is not positive."""
    return float(np.abs(_gap(x, y)).max())


def _gap(x, y):
    a, b = np.sum(x), np.sum(y)
    return x / a - y / b if a > 0 and b > 0 else np.array([math.nan])


def proportions(counts):
    """(N, K) float64: each row of ``counts`` (N, K) divided by its sum; a row of zeros stays one."""
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


def entropy_bits(counts):
    """(...) float64: entropy of each histogram ``counts`` (..., K) in bits, from 0 to log2 K; 0 for an empty one."""
    p = proportions(counts)
    return np.maximum(-np.sum(p * np.log2(p, out=np.zeros_like(p), where=p > 0), axis=-1), 0)


def total_variation(p, q):
    """(...) float64: half the sum of |p - q| over the last axis; for proportions 0 if equal, 1 if nothing is shared."""
    return np.abs(p - q).sum(axis=-1) / 2
