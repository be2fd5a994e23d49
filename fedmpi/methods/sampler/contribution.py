"""Contribution: clients with a larger remembered contribution are asked more often.

    p_n = floor / A + (1 - floor) gain_n / sum(gain)          over the A available clients

``gain`` is max(score, 0), or, with a ``temperature`` > 0, exp(score / temperature), in units of
the standard deviation of the known scores. Clients are drawn one after the other by p, without
replacement, see ``fedmpi.methods.sampler.race``. A client that the server has never heard of
has the mean gain of all others: neither preferred nor starved. Where nobody gains, all are
alike. A score moves only when its client takes part: with ``floor`` 0 and temperature 0 a
client whose score is not above 0 comes again only when too few others are available.
"""

import torch

from fedmpi.core.parts import Sampler
from fedmpi.methods.sampler.race import drawn_by, available_clients

# Scores that differ by less than this share of the largest differ by rounding only.
ROUNDING = 1e-12


def contribution(floor: float = 0.1, temperature: float = 0.0):
    """In proportion to remembered contributions; ``floor`` is the share that is drawn uniformly.

    Paper: Nagalapatti and Narayanam 2021, "Game of Gradients: Mitigating Irrelevant Clients in
        Federated Learning", arXiv 2110.12257, which draws by a softmax of Shapley values.
    Up: nothing more: the server remembers the scores.
    Down: nothing more.
    Example: fedmpi train --sampler contribution:floor=0.2 --cohort 4
    """
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be in [0, 1], got {floor}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be >= 0 and finite, got {temperature}")

    def draw(gen, count, records):
        clients = available_clients(records)
        # Nothing to choose: nothing is drawn either.
        if count >= len(clients):
            return clients
        p = probabilities(records.scores[clients], floor, temperature)
        return drawn_by(p, clients, count, gen)

    return Sampler(draw)


def probabilities(scores, floor, temperature):
    """float64 (A,) that sum to 1, from ``scores (A,)``, NaN for clients never heard of."""
    is_known = ~scores.isnan()
    gain = torch.ones_like(scores)
    if is_known.any():
        gain[is_known] = _gains(scores[is_known], temperature)
        gain[~is_known] = gain[is_known].mean()
    equal = 1 / len(gain)
    share = torch.full_like(gain, equal)
    total = gain.sum()
    if total > 0:
        share = gain / total
    return floor / len(gain) + (1 - floor) * share


def _gains(scores, temperature):
    if not temperature:
        return scores.clamp(min=0)
    # Scores of estimators differ in scale by orders.
    unit = float(scores.std(correction=0))
    largest = float(scores.abs().max())
    if unit <= ROUNDING * largest:
        return torch.ones_like(scores)
    scaled = scores / (temperature * unit)
    return scaled.softmax(dim=0)
