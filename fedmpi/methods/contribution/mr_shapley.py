"""Multi-round Shapley value: exact inside every round, summed over rounds (MR; Song et al., IEEE Big Data 2019).

    total_n <- total_n + decay^t phi_n^t  for the cohort of round t,        scores: the cohort's totals

Who does not take part adds 0, as in FedSV. With ``decay`` below 1 early rounds count more, in which models learn most.
Totals of all clients sum to the decayed sum of what each round gained. Costs 2^C utilities a round, refused above
``limit`` clients. Blind spots: those of the exact value; clients that are sampled more often have larger totals. The
totals remember, hence its usual weighting does not. Sees: the updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, at_most, SEES, by_id, check_limit, check_of,
                                              powerset, shapley_value)
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
        v, rank = by_id(cohort, utility, of)
        coalitions = powerset(len(rank))
        phi = shapley_value(coalitions, v(coalitions))[rank]
        total = state["total"].index_add(0, cohort.clients, decay ** cohort.schedule.t * phi)
        return Scores(total[cohort.clients], {"total": total})

    return Contribution(score, weighting="relu:memory=0", init=lambda n: {"total": torch.zeros_like(n)},
                        validated=True, cumulative=True, sees=SEES,
                        refuses=at_most(limit, "use shapley-mc or gtg-shapley, a smaller cohort or a larger limit"))
