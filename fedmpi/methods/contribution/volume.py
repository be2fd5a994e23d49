"""Robust volume: how much room a client's inputs take up (Xu et al., "Validation free and replication robust
volume-based data valuation", NeurIPS 2021).

    Vol(X) = sqrt det(X^T X),    RV = Vol(X~) prod_cubes (1 - a^(count + 1)) / (1 - a),    phi_n = RV_n / max_m RV_m

X are the inputs as the network gets them, flattened and projected to ``dims`` numbers by one Gaussian matrix for all
clients, entries N(0, 1) / sqrt(inputs): inputs of variance 1 have coordinates of about 1. X~ (a row a cube) are the
means of X in the occupied cubes of width ``omega`` of one grid for all clients. a = 1 / (10 cubes), of
the client's own occupied cubes (the authors' program takes those of all data sets together, and a grid that starts at
each set's least input), not of the samples: copies add to counts alone and raise RV by at most
``(1 - a^2)^-cubes``, 1 % for one cube and 1 / (100 cubes) for many. Vol itself grows by 2^(dims / 2) when every sample
is doubled. A client whose X~ has no full rank (fewer cubes than ``dims``) has volume 0.

phi is relative to the cohort's largest, thus in [0, 1], since a volume overflows and has no scale. It grows with
samples as n^(dims / 2); the weighting's ``score_power=0.2`` takes the fifth root, an edge instead of a volume.

Cost: one projection a client and round, one float upwards; no utility. Sees: clients' raw inputs (on the client; the
server gets the number). Blind spots: no label is looked at, so wrong labels cost nothing; noise in the inputs is
diversity and pays; it believes what clients report. Shapley values of the volume, which the paper goes on to, would
need the inputs at the server.
"""

import math

import numpy as np
import torch

from fedmpi.core.parts import Contribution, Scores

SEED = 2021          # of the projection: the same for all clients, rounds and runs


def robust_volume(dims: int = 5, omega: float = 0.1):
    """Volume of the projected inputs, robust against copies.

    Paper: Xu et al. 2021, "Validation Free and Replication Robust Volume-based Data Valuation", NeurIPS 2021.
    Up: one float more than the update.
    Down: nothing more.
    """
    if dims < 1:
        raise ValueError(f"dims must be >= 1, got {dims}")
    if not (omega > 0 and math.isfinite(omega)):
        raise ValueError(f"omega must be > 0, got {omega}: the width of a cube, where coordinates are about 1")

    def report(task):
        return {"log_volume": np.array([log_robust_volume(projected(task.inputs, dims), omega)])}

    def score(state, cohort, utility, gen):
        return Scores(relative([float(report["log_volume"][0]) for report in cohort.reports]))

    return Contribution(score, report=report, updates=False, sees="clients' raw inputs")


def relative(logs):
    """``(C,) float64``: e to the logs over the largest of them; 0 for all where none is finite."""
    logs = torch.tensor(logs, dtype=torch.float64)
    return (logs - logs.max()).exp() if logs.max() > -math.inf else torch.zeros_like(logs)


def projected(inputs, dims, block=256):
    """``(n, dims) float64`` on the CPU: the flattened inputs times a fixed Gaussian matrix."""
    matrix = gaussian(inputs[0].numel(), dims) / inputs[0].numel() ** 0.5
    return torch.cat([part.flatten(1).cpu().double() @ matrix for part in inputs.split(block)])


def gaussian(rows, columns):
    """``(rows, columns) float64``: the same standard normal numbers at every call, from a generator of their own."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)


def log_robust_volume(X, omega):
    """log RV of ``X (n, dims) float64``; -inf where the volume is 0."""
    means, counts = cube_means(X, omega)
    a = 1 / (10 * len(counts))
    return log_volume(means) + float((torch.log1p(-a ** (counts.double() + 1)) - math.log1p(-a)).sum())


def cube_means(X, omega):
    """``(means (cubes, dims), counts (cubes,))`` of the rows of ``X`` in each occupied cube of width ``omega``."""
    _, cube, counts = torch.unique((X / omega).floor(), dim=0, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), X.shape[1], dtype=X.dtype).index_add_(0, cube, X)
    return sums / counts[:, None], counts


def log_volume(X):
    """log of ``sqrt det(X^T X)`` from the singular values of ``X (rows, dims)``; -inf where it has no full rank."""
    rows, dims = X.shape
    if rows < dims:
        return -math.inf
    values = torch.linalg.svdvals(X)
    if values[-1] <= values[0] * rows * torch.finfo(X.dtype).eps:
        return -math.inf
    return float(values.log().sum())
