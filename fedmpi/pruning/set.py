"""SET: every ``every`` rounds drop the weights closest to zero and grow as many at random, on the server
(arXiv 1707.04780).

A layer drops ``floor(fraction * active)`` weights: as printed in the paper the same share of its positive and of its
negative weights (``signed``), or simply the smallest magnitudes. New weights start at 0; nothing moves after the last
round. ``decay=cosine`` shrinks the share to 0 at ``end`` of the rounds, as the thesis's program does; the paper's
share is constant. The first mask is ERK's: the paper's own ``er`` knows linear layers only and leaves convolutions
dense. Wire: values; where the mask changed its changes, downwards.
"""

import math

import torch

from fedmpi.mask import budgets, check, cosine_decay, draw, first_mask, swap
from fedmpi.parts import Pruner


def set(sparsity: float = 0.8, distribution: str = "erk", init: str = "random", every: int = 1, fraction: float = 0.3,
        decay: str = "constant", end: float = 0.75, signed: bool = True):
    """Drop near zero, grow at random."""
    check(sparsity, distribution, init, every, fraction)
    if decay not in ("constant", "cosine"):
        raise ValueError(f"decay must be constant or cosine, got {decay!r}")

    if decay == "constant" and end != 0.75:
        raise ValueError(f"end={end} belongs to decay=cosine; decay=constant moves weights until the last round")

    def start(layout, x, schedule, gen):
        return {}, first_mask(layout, x, budgets(layout, sparsity, distribution), init, gen)

    def share(schedule):
        if schedule.t % every or schedule.t >= schedule.rounds:
            return 0.0
        return fraction if decay == "constant" else cosine_decay(fraction, schedule.t, end * schedule.rounds)

    def evolve(state, mask, x, replies, schedule, gen):
        if share(schedule) == 0:
            return state, mask
        layout = replies.layout
        counts = [math.floor(share(schedule) * kept) for kept in layout.kept(mask)]
        scores = _sign_ranks(layout, mask, x) if signed else x[: layout.Q].abs()
        return state, swap(layout, mask, counts, scores, lambda slot, free, k: draw(free, k, gen))

    return Pruner(start, evolve)


def _sign_ranks(layout, mask, x):
    """float32 (Q,): each kept weight's rank by magnitude among its layer's kept weights of its sign, as a share."""
    ranks = torch.ones(layout.Q)
    for slot in layout.weights:
        values, live = x[slot.span], mask[slot.span]
        for side in (live & (values >= 0), live & (values < 0)):
            members = torch.nonzero(side).flatten()
            order = values[members].abs().argsort(stable=True)
            ranks[slot.offset + members[order]] = torch.arange(1, len(members) + 1) / max(len(members), 1)
    return ranks
