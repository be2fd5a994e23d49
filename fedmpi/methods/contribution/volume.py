"""Robust volume: how much room a client's inputs take up (Xu et al., NeurIPS 2021).

    Vol(X) = sqrt det(X^T X),    RV = Vol(X~) prod_cubes (1 - a^(count + 1)) / (1 - a)
    phi_n = RV_n / max_m RV_m

X are the inputs as the network gets them, flattened and projected to ``dims`` numbers by one
Gaussian matrix for all clients, entries N(0, 1) / sqrt(inputs): inputs of variance 1 have
coordinates of about 1. X~ (a row a cube) are the means of X in the occupied cubes of width
``omega`` of one grid for all clients.

a = 1 / (10 cubes), of the client's own occupied cubes, not of its samples: copies add to counts
alone and raise RV by at most ``(1 - a^2)^-cubes``, 1 % for one cube and 1 / (100 cubes) for many.
Vol itself grows by 2^(dims / 2) when every sample is doubled. (The authors' program takes the
cubes of all data sets together, and a grid that starts at each set's least input.) A client whose
X~ has no full rank (fewer cubes than ``dims``) has volume 0.

phi is relative to the cohort's largest, thus in [0, 1], since a volume overflows and has no scale.
It grows with samples as n^(dims / 2); the weighting's ``score_power=0.2`` takes the fifth root, an
edge instead of a volume.

Cost: one projection a client and round, one float upwards; no utility. Sees: clients' raw inputs
(on the client; the server gets the number). Blind spots: no label is looked at, so wrong labels
cost nothing; noise in the inputs is diversity and pays; it believes the clients' reports. Shapley
values of the volume, the paper's next step, would need the inputs at the server.
"""

import math

import numpy as np
import torch

from fedmpi.core.parts import Contribution, Scores

# Of the projection: the same for all clients, rounds and runs.
SEED = 2021


def robust_volume(dims: int = 5, omega: float = 0.1):
    """Volume of the projected inputs, robust against copies.

    Paper: Xu et al. 2021, "Validation Free and Replication Robust Volume-based Data Valuation",
        NeurIPS 2021.
    Up: one float more than the update.
    Down: nothing more.
    """
    if dims < 1:
        raise ValueError(f"dims must be >= 1, got {dims}")
    if not (omega > 0 and math.isfinite(omega)):
        raise ValueError(f"omega must be > 0, got {omega}: the width of a cube, where coordinates "
                         "are about 1")

    def report(task):
        """log RV of the client's inputs, float64 (1,)."""
        X = projected(task.inputs, dims)
        return {"log_volume": np.array([log_robust_volume(X, omega)])}

    def score(state, cohort, utility, gen):
        """The volumes over the cohort's largest."""
        logs = [float(answer["log_volume"][0]) for answer in cohort.reports]
        return Scores(relative(logs))

    return Contribution(
        score,
        report=report,
        updates=False,
        sees="clients' raw inputs",
    )


# --- on the server ---

def relative(logs):
    """``(C,) float64``: e to the logs over the largest of them; 0 for all if none is finite."""
    logs = torch.tensor(logs, dtype=torch.float64)
    largest = logs.max()
    if largest > -math.inf:
        return (logs - largest).exp()
    return torch.zeros_like(logs)


# --- on clients ---

def projected(inputs, dims, block=256):
    """``(n, dims) float64`` on the CPU: the flattened inputs times a fixed Gaussian matrix."""
    numbers = inputs[0].numel()
    matrix = gaussian(numbers, dims) / numbers ** 0.5
    pieces = []
    # Piece by piece: float64 takes twice the memory of the inputs.
    for part in inputs.split(block):
        flat = part.flatten(1).cpu().double()
        pieces.append(flat @ matrix)
    return torch.cat(pieces)


def gaussian(rows, columns):
    """``(rows, columns) float64``: standard normal numbers, the same ones at every call."""
    gen = torch.Generator().manual_seed(SEED)
    return torch.randn(rows, columns, generator=gen, dtype=torch.float64)


def log_robust_volume(X, omega):
    """log RV of ``X (n, dims) float64``; -inf for a volume of 0."""
    means, counts = cube_means(X, omega)
    a = 1 / (10 * len(counts))
    # log (1 - a^(count + 1)) / (1 - a), by cube.
    powers = a ** (counts.double() + 1)
    numerators = torch.log1p(-powers)
    factors = numerators - math.log1p(-a)
    return log_volume(means) + float(factors.sum())


def cube_means(X, omega):
    """``(means (cubes, dims), counts (cubes,))`` of the rows of ``X`` in each occupied cube."""
    cubes = (X / omega).floor()
    _, cube_of, counts = torch.unique(cubes, dim=0, return_inverse=True, return_counts=True)
    dims = X.shape[1]
    sums = torch.zeros(len(counts), dims, dtype=X.dtype)
    sums.index_add_(0, cube_of, X)
    return sums / counts[:, None], counts


def log_volume(X):
    """log of ``sqrt det(X^T X)`` of ``X (rows, dims)``; -inf without full rank."""
    rows, dims = X.shape
    if rows < dims:
        return -math.inf
    values = torch.linalg.svdvals(X)
    eps = torch.finfo(X.dtype).eps
    # The rule of numpy's matrix_rank.
    rounding = values[0] * rows * eps
    if values[-1] <= rounding:
        return -math.inf
    return float(values.log().sum())
