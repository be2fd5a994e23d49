"""From scores to weights: the shared part of proportional, relu, softmax, min-max and tanh.

A map turns the cohort's scores into gains >= 0. Then, each an option of its own:

    s_n <- memory s_n + (1 - memory) gain_n / sum(gain) sum(s)     sums over the cohort
    r_n ~ n_n^size_power max(s_n, floor / N)^score_power           data-size prior, floor

The first line is an exponential average. The weights serve at once. s starts equal for all, not
at the data's shares, which are in the prior already. Scaled to the mass of the cohort in s,
``memory`` means the same for any cohort, and absent clients are neither raised nor lowered.
Where no gain is positive s stays.
"""

import torch

from fedmpi.core.parts import Weighting

# Scores that differ by less than this share of the largest differ by rounding only.
ROUNDING = 1e-12


def earned(gains, memory, size_power, score_power, floor):
    """A ``Weighting`` of the map ``gains(phi (C,)) -> (C,)`` >= 0."""
    if not 0 <= memory <= 1:
        raise ValueError(f"memory must be in [0, 1], got {memory}")
    if floor < 0:
        raise ValueError(f"floor must be >= 0, got {floor}")

    def init(n):
        score = torch.full_like(n, 1 / len(n))
        return {"score": score, "size": n.clone(), "weights": n ** size_power}

    def weigh(state, phi, cohort):
        clients = cohort.clients
        size = state["size"]
        score = averaged(state["score"], gains(phi), clients)
        floored = score.clamp(min=floor / len(score))
        weights = size ** size_power * floored ** score_power
        after = {"score": score, "size": size, "weights": weights}
        return after, shares(weights[clients])

    def averaged(score, gain, clients):
        """(N,): a copy of ``score (N,)``, its entries of the cohort moved towards their gains."""
        score = score.clone()
        # Nobody has earned anything: the past counts.
        if gain.sum() > 0:
            past = score[clients]
            mass = past.sum()
            score[clients] = memory * past + (1 - memory) * mass * gain / gain.sum()
        return score

    def notes(facts):
        if score_power == 0 and "floor" in facts.user_options:
            yield "no effect of floor: with score_power=0 scores have no part in the weights"

    return Weighting(init, weigh, fixed=score_power == 0, notes=notes)


def shares(weights):
    """``weights (C,)`` divided by their sum; equal shares for a sum of 0."""
    total = weights.sum()
    if total > 0:
        return weights / total
    return torch.full_like(weights, 1 / len(weights))


def positive(phi):
    """``max(phi, 0)``, (C,)."""
    return phi.clamp(min=0)
