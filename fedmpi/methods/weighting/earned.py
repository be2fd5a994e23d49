"""From scores to weights: what proportional, relu, softmax, min-max and tanh share.

A map turns the cohort's scores into gains >= 0. Then, each an option of its own:

    s_n <- memory s_n + (1 - memory) gain_n / sum(gain) sum(s)     over the cohort: exponential average
    r_n ~ n_n^size_power max(s_n, floor / N)^score_power           data-size prior, floor

The weights serve at once. s starts equal for all, not at the data's shares, which the prior
holds already. Scaled to the mass that s gave the cohort, ``memory`` means what it says and
absent clients are neither raised nor lowered. Where no gain is positive s stays.
"""

import torch

from fedmpi.core.parts import Weighting


def earned(gains, memory, size_power, score_power, floor):
    """A ``Weighting`` of the map ``gains(phi (C,)) -> (C,)`` >= 0."""
    if not 0 <= memory <= 1:
        raise ValueError(f"memory must be in [0, 1], got {memory}")
    if floor < 0:
        raise ValueError(f"floor must be >= 0, got {floor}")

    def init(n):
        return {"score": torch.full_like(n, 1 / len(n)), "size": n.clone(), "weights": n ** size_power}

    def weigh(state, phi, cohort):
        who, s = cohort.clients, state["score"].clone()
        gain = gains(phi)
        if gain.sum() > 0:
            s[who] = memory * s[who] + (1 - memory) * s[who].sum() * gain / gain.sum()
        r = state["size"] ** size_power * s.clamp(min=floor / len(s)) ** score_power
        total = r[who].sum()
        weights = r[who] / total if total > 0 else torch.full_like(phi, 1 / len(phi))
        return {"score": s, "size": state["size"], "weights": r}, weights

    def notes(facts):
        if score_power == 0 and "floor" in facts.given:
            yield "no effect of floor: with score_power=0 scores have no part in the weights"

    return Weighting(init, weigh, fixed=score_power == 0, notes=notes)
