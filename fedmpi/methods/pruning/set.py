"""SET: every ``every`` rounds drop the weights closest to zero and grow as many at random, on the server
(arXiv 1707.04780).

A layer drops ``floor(fraction * active)`` weights: as printed in the paper the same share of its positive and of its
negative weights (``signed``), or simply the smallest magnitudes. New weights start at 0; nothing moves after the last
round. ``decay=cosine`` shrinks the share to 0 at ``end`` of the rounds, as the thesis's program does; the paper's
share is constant. The first mask is ERK's: the paper's own ``er`` knows linear layers only and leaves convolutions
dense.
"""

import math
from typing import Literal

import torch

from fedmpi.core.effect import needs
from fedmpi.core.mask import (Distribution, Init, budgets, check, cosine_decay, draw, first_mask,
                              nearest_zero, never_swaps, positions, swap, top)
from fedmpi.core.parts import Pruner, Round


@needs(end="decay=cosine")
def set(sparsity: float = 0.8, distribution: Distribution = "erk", init: Init = "random",
        every: int = 1, fraction: float = 0.3, decay: Literal["constant", "cosine"] = "constant",
        end: float = 0.75, signed: bool = True):
    """Drop near zero, grow at random.

    Paper: Mocanu et al. 2018, "Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity
        inspired by Network Science", arXiv 1707.04780.
    Up: as static.
    Down: as static, and the mask's changes after it moved.
    Example: fedmpi train --strategy fedavg --pruner set:every=2
    """
    check(sparsity, distribution, init, every, fraction)
    if decay not in ("constant", "cosine"):
        raise ValueError(f"decay must be constant or cosine, got {decay!r}")

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
        return state, swap(layout, mask, counts, x, lambda slot, k: draw(~mask[slot.span], k, gen),
                           nearest_of_both_signs if signed else nearest_zero)

    def notes(facts):
        kept = budgets(facts.layout, sparsity, distribution)
        return never_swaps(facts.layout, kept, lambda t: share(Round(t, facts.rounds)),
                           facts.rounds, f"every={every} and fraction={fraction} leave it "
                           "nothing to move before the last one")

    return Pruner(start, evolve, notes=notes, planned=share)


def nearest_of_both_signs(values, k):
    """int64 (k,): the positions of ``k`` of ``values (m,)``, those nearest to zero of either sign, the same share of
    both: as many of those >= 0 as are among the first k where both are merged by rank / (number of that sign)."""
    negative = values < 0
    below = int(torch.count_nonzero(negative))
    above = min((k + 1) * (len(values) - below) // max(len(values), 1), k)
    size = values.abs().neg_()
    chosen = top(size.masked_fill(negative, -torch.inf), above)
    return positions(chosen | top(size.masked_fill_(~negative, -torch.inf), k - above))
