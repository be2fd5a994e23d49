"""Multi-round Shapley value: exact inside every round, summed over rounds (MR).

    total_n <- total_n + decay^t phi_n^t  for the cohort of round t,    scores: the cohort's totals

A client outside the cohort adds 0, as in FedSV (Song et al., IEEE Big Data 2019). With ``decay``
below 1 early rounds count more: models learn most in them. Totals of all clients sum to the
decayed sum of the rounds' gains. Costs 2^C utilities a round, refused above ``limit`` clients.
Blind spots: those of the exact value; clients that are sampled more often have larger totals. The
totals remember, hence its usual weighting does not. Sees: the updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, SEES, at_most, by_id, check_limit, check_of,
                                              exact)
from fedmpi.core.parts import Contribution, Scores


def mr_shapley(of: Of = "loss", decay: float = 1.0, limit: int = 16):
    """Exact Shapley values, summed over the rounds.

    Paper: Song, Tong and Wei 2019, "Profit Allocation for Federated Learning", IEEE Big Data 2019.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    Example: fedmpi train --contribution mr-shapley --clients 6
    """
    check_of(of)
    check_limit(limit)
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1], got {decay}")

    def score(state, cohort, utility, gen):
        """The cohort's totals, with this round's values."""
        v, rank = by_id(cohort, utility, of)
        phi = exact(v, len(rank))[rank]
        earned = decay ** cohort.now.t * phi
        clients = cohort.clients
        total = state["total"].index_add(0, clients, earned)
        return Scores(total[clients], {"total": total})

    instead = "use shapley-mc or gtg-shapley, a smaller cohort or a larger limit"
    return Contribution(
        score,
        # Totals remember all rounds: weights need not.
        weighting="relu:memory=0",
        init=init,
        validated=True,
        cumulative=True,
        sees=SEES,
        refuses=at_most(limit, instead),
    )


def init(n):
    """Totals of 0 for all clients, float64 (N,)."""
    return {"total": torch.zeros_like(n)}
