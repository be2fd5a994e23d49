"""From contribution scores to aggregation weights.

The state holds ``weights (N,)`` float64, every client's weight up to a common factor (data sizes at first). A client
that did not take part keeps its own; a cohort's weights are its members' shares of their sum.
"""

import torch


def clean(memory=0.9, size_power=1.0, score_power=1.0, floor=1e-3):
    """``(init, weigh)`` of the improved rule: ``s <- memory s + (1 - memory) psi+`` and ``r ~ n^p s^q``.

    ``psi+ = max(psi, 0) / sum(max(psi, 0))`` over the cohort, scaled to the mass that s gave the cohort, so that
    ``memory`` means what it says and absent clients are neither raised nor lowered. ``floor`` is the least s, as a
    share of the mean s. Where no score is positive s stays. The weights serve at once. s starts
    equal for all, not at the data's shares, which ``n^p`` holds already.
    """
    if not 0 <= memory <= 1:
        raise ValueError(f"memory must be in [0, 1], got {memory}")

    def init(n):
        return {"score": torch.full_like(n, 1 / len(n)), "size": n / n.sum(), "weights": n ** size_power}

    def weigh(state, phi, cohort):
        who, s = cohort.clients, state["score"].clone()
        gain = phi.clamp(min=0)
        if gain.sum() > 0:
            s[who] = memory * s[who] + (1 - memory) * s[who].sum() * gain / gain.sum()
        r = state["size"] ** size_power * s.clamp(min=floor / len(s)) ** score_power
        return {"score": s, "size": state["size"], "weights": r}, r[who] / r[who].sum()

    return init, weigh


def thesis_mixing(gamma=0.7, schedule="constant", start="data", floor=1e-3):
    """``(init, weigh)`` of the thesis: ``r <- norm(max(gamma_t r + (1 - gamma_t) psi, floor))``, for the next round.

    The floor is the thesis program's; the printed rule has none and can turn weights negative.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    if schedule not in ("constant", "thesis"):
        raise ValueError(f"schedule must be constant or thesis, got {schedule!r}")
    if start not in ("data", "zero"):
        raise ValueError(f"start must be data or zero, got {start!r}")

    def init(n):
        return {"weights": n.clone(), "mixed": torch.full(n.shape, start == "data")}

    def weigh(state, phi, cohort):
        who, t = cohort.clients, cohort.schedule.t
        mass = state["weights"][who].sum()
        now = state["weights"][who] / mass
        gamma_t = 1 - (1 - gamma) / t if schedule == "thesis" else gamma
        if gamma_t == 1:                                 # nothing mixed: the same weights to the last bit
            return state, now
        prior = now * state["mixed"][who]                # the thesis's program starts its scores at 0
        mixed = (gamma_t * prior + (1 - gamma_t) * phi).clamp(min=floor)
        weights, touched = state["weights"].clone(), state["mixed"].clone()
        weights[who] = mixed / mixed.sum() * mass        # the cohort keeps its mass among all clients
        touched[who] = True
        return {"weights": weights, "mixed": touched}, now

    return init, weigh
