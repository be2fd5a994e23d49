"""The thesis's mixing: ``r <- norm(max(gamma_t r + (1 - gamma_t) psi, floor))`` for the next round.

``schedule=thesis`` is ``gamma_t = 1 - (1 - gamma) / t``, ``constant`` the same gamma always;
``start`` is ``data`` (the shares of the data) or ``zero`` (as the thesis's program, which then
forgets the sizes after one round). r sums to 1 and psi to several: that difference of scale is
kept. gamma = 1 is FedAvg. With a constant gamma = 0.95 it is CGSV's rule (NeurIPS 2021). The
floor is the program's; the printed rule has none and can turn weights negative.
"""

from typing import Literal

import torch

from fedmpi.core.parts import Weighting
from fedmpi.methods.weighting.earned import shares


def thesis(gamma: float = 0.7, schedule: Literal["constant", "thesis"] = "constant",
           start: Literal["data", "zero"] = "data", floor: float = 1e-3):
    """Old weight and raw score, mixed.

    Paper: the thesis (2023) that this project implements, on training large models federatedly
        by pruning; with constant gamma Xu et al. 2021, "Gradient Driven Rewards to Guarantee
        Fairness in Collaborative Machine Learning", NeurIPS 2021.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    if schedule not in ("constant", "thesis"):
        raise ValueError(f"schedule must be constant or thesis, got {schedule!r}")
    if start not in ("data", "zero"):
        raise ValueError(f"start must be data or zero, got {start!r}")

    def gamma_of(t):
        if schedule == "thesis":
            return 1 - (1 - gamma) / t
        return gamma

    def init(n):
        # False where a client's score starts at 0 instead of its weight.
        has_prior = torch.full(n.shape, start == "data")
        return {"weights": n.clone(), "mixed": has_prior}

    def weigh(state, phi, cohort):
        clients = cohort.clients
        mass = state["weights"][clients].sum()
        now = shares(state["weights"][clients])
        gamma_t = gamma_of(cohort.now.t)
        # Nothing is mixed in: the weights stay the same to the last bit.
        if gamma_t == 1:
            return state, now
        # start=zero: a client's first score is mixed with 0.
        prior = now * state["mixed"][clients]
        mixed = gamma_t * prior + (1 - gamma_t) * phi
        share = shares(mixed.clamp(min=floor))
        weights = state["weights"].clone()
        has_prior = state["mixed"].clone()
        # The cohort keeps its mass among all clients.
        weights[clients] = share * mass
        has_prior[clients] = True
        return {"weights": weights, "mixed": has_prior}, now

    def notes(facts):
        idle = [name for name in ("schedule", "start", "floor") if name in facts.user_options]
        if gamma == 1 and idle:
            yield f"no effect of {', '.join(idle)}: with gamma=1 no score is mixed in"

    return Weighting(init, weigh, fixed=gamma == 1, notes=notes)
