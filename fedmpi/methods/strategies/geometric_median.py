"""Geometric median: the step whose weighted sum of distances to the updates is least (RFA).

    z = argmin_z sum_n w_n |z - U_n|,       x <- x + z

Clients with fewer than half of the weight cannot move it at will (Pillutla et al. 2019, arXiv
1912.13445). It is found by the smoothed Weiszfeld iteration

    beta_n <- w_n / max(nu, |z - U_n|),     z <- sum_n beta_n U_n / sum_n beta_n

from z = 0, the received model (not from the mean: one huge update takes it arbitrarily far away),
until no beta changes by more than ``tolerance`` of itself. ``nu`` is a length, in the units
of weights. A client's weight is its share of the sum: w twice as large is the same client twice,
and a client of weight 0 has no part.

Under masks of the clients' own the distance of a client is over its own entries, and z_j is the
beta-weighted mean over the holders of j: every step still lowers the sum. Without a holder an
entry does not move. Running statistics are merged with the last betas but have no part
in distances. Cost: C^2 K multiplications once for all iterations; under own masks a pass over all
updates an iteration.
"""

import torch

from fedmpi.core.reduce import mean, moved
from fedmpi.core.parts import Strategy
from fedmpi.methods.strategies.fedavg import stateless
from fedmpi.methods.strategies.krum import trained_blocks
from fedmpi.methods.strategies.median import outvoting


def geometric_median(iterations: int = 50, nu: float = 1e-6, tolerance: float = 1e-3):
    """Least weighted sum of distances to the updates.

    Paper: Pillutla, Kakade and Harchaoui 2022, "Robust Aggregation for Federated Learning", arXiv
        1912.13445.
    Up: the kept values of the update, as FedAvg, one by one: workers may not add them up.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy geometric-median --fault scaled:share=0.2
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if not nu > 0:
        raise ValueError(f"nu must be > 0, got {nu}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")

    def merge(state, x, updates, weights):
        distances = distances_from_mean(updates)
        betas = weiszfeld(weights, distances, iterations, nu, tolerance)
        step = mean(updates, betas)
        return state, moved(x, updates.support, step)

    return Strategy(
        stateless,
        merge,
        # The rule itself mistrusts: no scores unless somebody asks for them.
        contribution="uniform",
        notes=outvoting,
    )


def weiszfeld(weights, distances, iterations, nu, tolerance):
    """float64 (C,) summing to 1: the betas at the end of the iteration.

    ``distances(betas) -> (C,)`` are those of the updates from their mean with weights ``betas``.
    """
    betas = torch.zeros_like(weights)
    for _ in range(iterations):
        new = weights / distances(betas).clamp(min=nu)
        new = new / new.sum()
        change = (new - betas).abs()
        settled = bool((change <= tolerance * betas).all())
        betas = new
        if settled:
            break
    return betas


def distances_from_mean(updates):
    """``distances(betas (C,) float64) -> (C,) float64`` of updates from their mean by ``betas``.

    Each is over the client's trained entries. Betas of 0 give the lengths of the updates."""
    if updates.B is None:
        return _by_products(updates)
    return _by_entries(updates)


def _by_products(updates):
    """From inner products alone: ``|U_n - z|^2 = G_nn - 2 (G beta)_n + beta G beta``."""
    C = len(updates.U)
    gram = torch.zeros(C, C, dtype=torch.float64)
    for _, u, _ in trained_blocks(updates):
        gram.addmm_(u, u.T)

    def distances(betas):
        dots = gram @ betas
        mean_square = betas @ dots
        squares = gram.diagonal() - 2 * dots + mean_square
        # Rounding takes a distance of 0 below it.
        return squares.clamp(min=0).sqrt()

    return distances


def _by_entries(updates):
    """Each client, on the entries that it holds, from the mean over each entry's holders."""

    def distances(betas):
        squares = torch.zeros_like(betas)
        for _, u, b in trained_blocks(updates):
            held_weight = (betas @ b).clamp(min=1e-300)
            z = (betas @ u) / held_weight
            u.addcmul_(b, z, value=-1)
            squares += u.square_().sum(dim=1)
        return squares.sqrt()

    return distances
