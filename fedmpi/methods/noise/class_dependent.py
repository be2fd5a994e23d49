"""Class-dependent label noise: one random confusion matrix, the same for all noisy clients.

    P(y' = j | y = k) = 1 - r_k for j = k, r_k d_kj otherwise;   r_k = rate + spread min(rate, 1 - rate) e_k

``e`` (K,) is uniform, shifted to mean 0 and scaled to largest size 1, so the mean of r over the
classes is ``rate`` exactly and no r_k leaves [0, 1]; each row d_k ~ Dir(focus 1_(K-1)) says
where the wrong ones of class k go, to few classes for a small ``focus``. Class-conditional
noise is of Natarajan 2013 and Patrini 2017 (1609.03683); random matrices of a given trace, here
K (1 - rate), of Northcutt 2021 (1911.00068). A client's recorded rate is the fraction of its
labels that changed, which differs from ``rate`` with its mix of classes.
"""

import math

import numpy as np

from fedmpi.core.parts import Noise
from fedmpi.methods.noise.corrupt import fraction, shared_rates


def class_dependent(rate: float = 0.4, share: float = 1.0, spread: float = 1.0, focus: float = 0.5):
    """By one random confusion matrix of mean level ``rate``, on round(share * clients) random
    clients.

    Paper: Patrini et al. 2017, "Making Deep Neural Networks Robust to Label Noise: a Loss
        Correction Approach", arXiv 1609.03683; Northcutt, Jiang and Chuang 2021, "Confident
        Learning: Estimating Uncertainty in Dataset Labels", arXiv 1911.00068.
    """
    fraction(spread=spread)
    if not (focus > 0 and math.isfinite(focus)):
        raise ValueError(f"focus must be > 0 and finite, got {focus}")

    def shared(classes, gen):
        return _unevenness(classes, gen), _destinations(classes, focus, gen)

    def corrupt(labels, level, classes, gen, common):
        cumulated = np.cumsum(confusion(level, spread, *common), 1)[labels]
        drawn = (gen.random((len(labels), 1)) >= cumulated).sum(1)
        return np.minimum(drawn, classes - 1)    # a row may sum to a little less than 1

    return Noise(shared_rates(rate, share), corrupt, shared)


def confusion(level, spread, unevenness, destinations):
    """``(K, K) float64`` of rows that sum to 1: the chance that a label of the row's class
    becomes the column's."""
    rates = (level + spread * min(level, 1 - level) * unevenness).clip(0, 1)
    return np.diag(1 - rates) + rates[:, None] * destinations


def _unevenness(classes, gen):
    """``(K,) float64`` of mean 0 and largest size 1."""
    centred = gen.random(classes)
    centred -= centred.mean()
    return centred / abs(centred).max()


def _destinations(classes, focus, gen):
    """``(K, K) float64`` of zero diagonal and rows that sum to 1."""
    rows = gen.dirichlet(np.full(classes - 1, min(focus, 1e12)), classes)    # above it all are equal to 6 digits
    table = np.zeros((classes, classes))
    table[~np.eye(classes, dtype=bool)] = rows.ravel()
    return table
