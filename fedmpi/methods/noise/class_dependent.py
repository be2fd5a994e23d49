"""Class-dependent label noise: one random confusion matrix, the same for all noisy clients.

    P(y' = j | y = k) = 1 - r_k for j = k, r_k d_kj otherwise
    r_k = rate + spread min(rate, 1 - rate) e_k

``e`` (K,) is uniform, shifted to mean 0 and scaled to largest size 1, so the mean of r over the
classes is ``rate`` exactly and no r_k leaves [0, 1]; each row d_k ~ Dir(focus 1_(K-1)) spreads
the wrong labels of class k over the other classes, over few of them for a small ``focus``.
Class-conditional noise is of Natarajan 2013 and Patrini 2017 (1609.03683); random matrices of a
fixed trace, here K (1 - rate), of Northcutt 2021 (1911.00068). A client's recorded rate is the
fraction of its labels that changed, which differs from ``rate`` with its mix of classes.
"""

import math

import numpy as np

from fedmpi.core.parts import Noise
from fedmpi.methods.noise.corrupt import fraction, shared_rates

# Above it all shares of a Dirichlet draw are equal to 6 digits.
MOST_FOCUS = 1e12


def class_dependent(rate: float = 0.4, share: float = 1.0, spread: float = 1.0, focus: float = 0.5):
    """One random confusion matrix of mean level ``rate``, on a ``share`` of the clients.

    round(share * clients) clients are drawn at random.

    Paper: Patrini et al. 2017, "Making Deep Neural Networks Robust to Label Noise: a Loss
        Correction Approach", arXiv 1609.03683; Northcutt, Jiang and Chuang 2021, "Confident
        Learning: Estimating Uncertainty in Dataset Labels", arXiv 1911.00068.
    """
    fraction(spread=spread)
    if not (focus > 0 and math.isfinite(focus)):
        raise ValueError(f"focus must be > 0 and finite, got {focus}")

    def shared(classes, gen):
        unevenness = _unevenness(classes, gen)
        destinations = _destinations(classes, focus, gen)
        return unevenness, destinations

    def corrupt(labels, level, classes, gen, common):
        table = confusion(level, spread, *common)
        cumulated = np.cumsum(table, 1)
        luck = gen.random((len(labels), 1))
        # The number of classes whose cumulated chance is below a label's luck.
        fresh = (luck >= cumulated[labels]).sum(1)
        # A row may sum to a little less than 1.
        return np.minimum(fresh, classes - 1)

    return Noise(shared_rates(rate, share), corrupt, shared)


def confusion(level, spread, unevenness, destinations):
    """``(K, K) float64``: the chance that a label of the row's class becomes the column's.

    Rows sum to 1.
    """
    # No rate may leave [0, 1].
    room = min(level, 1 - level)
    rates = (level + spread * room * unevenness).clip(0, 1)
    return np.diag(1 - rates) + rates[:, None] * destinations


def _unevenness(classes, gen):
    """``(K,) float64`` of mean 0 and largest size 1."""
    centred = gen.random(classes)
    centred -= centred.mean()
    return centred / abs(centred).max()


def _destinations(classes, focus, gen):
    """``(K, K) float64`` of zero diagonal and rows that sum to 1."""
    strengths = np.full(classes - 1, min(focus, MOST_FOCUS))
    rows = gen.dirichlet(strengths, classes)
    off_diagonal = ~np.eye(classes, dtype=bool)
    table = np.zeros((classes, classes))
    table[off_diagonal] = rows.ravel()
    return table
