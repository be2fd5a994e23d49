"""SET: drop the weights closest to zero and grow as many at random, on the server.

Every ``every`` rounds, of a layer's n active weights (arXiv 1707.04780)

    drop  floor(fraction n)  weights nearest to zero;    grow as many of the pruned ones, at 0

``signed`` drops the same share of the positive and of the negative weights, as printed in the
paper; else simply the smallest magnitudes go. Nothing moves after the last round. ``decay=cosine``
shrinks the share to 0 at ``end`` of the rounds, as the thesis's program does; the paper's share is
constant. The first mask is ERK's: the paper's own ``er`` knows linear layers only and leaves
convolutions dense.
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

    Paper: Mocanu et al. 2018, "Scalable Training of Artificial Neural Networks with Adaptive
        Sparse Connectivity inspired by Network Science", arXiv 1707.04780.
    Up: as static.
    Down: as static, and the mask's changes after it moved.
    Example: fedmpi train --strategy fedavg --pruner set:every=2
    """
    check(sparsity, distribution, init, every, fraction)
    if decay not in ("constant", "cosine"):
        raise ValueError(f"decay must be constant or cosine, got {decay!r}")
    drop = nearest_of_both_signs if signed else nearest_zero

    def start(layout, x, now, gen):
        kept = budgets(layout, sparsity, distribution)
        return {}, first_mask(layout, x, kept, init, gen)

    def share(now):
        """The share of a layer's kept weights that is swapped; 0 in rounds without an update."""
        if now.t % every:
            return 0.0
        # After the last round nobody would train the new weights.
        if now.t >= now.rounds:
            return 0.0
        if decay == "constant":
            return fraction
        return cosine_decay(fraction, now.t, end * now.rounds)

    def evolve(state, mask, x, replies, now, gen):
        swapped = share(now)
        if swapped == 0:
            return state, mask
        layout = replies.layout
        counts = num_swaps(layout, mask, swapped)

        def grow(slot, k):
            """bool: the places of the layer's k new weights."""
            pruned = ~mask[slot.span]
            return draw(pruned, k, gen)

        return state, swap(layout, mask, counts, x, grow, drop)

    def notes(facts):
        def share_of(t):
            """The share that is swapped in round t."""
            return share(Round(t, facts.rounds))

        kept = budgets(facts.layout, sparsity, distribution)
        reason = (f"every={every} and fraction={fraction} leave it nothing to move before the "
                  "last one")
        return never_swaps(facts.layout, kept, share_of, facts.rounds, reason)

    return Pruner(start, evolve, notes=notes, planned=share)


def num_swaps(layout, mask, share):
    """A count a layer: this share of its kept weights, rounded down."""
    kept = layout.kept(mask)
    return [math.floor(share * active) for active in kept]


def nearest_of_both_signs(values, k):
    """int64 (k,): the positions of ``k`` of ``values (m,)``, nearest to zero of either sign.

    Both signs give the same share: as many values >= 0 as are among the first k, if both are
    merged by rank / (number of that sign)."""
    negative = values < 0
    m = len(values)
    num_negative = int(torch.count_nonzero(negative))
    num_positive = m - num_negative
    positive_share = (k + 1) * num_positive // max(m, 1)
    from_positive = min(positive_share, k)
    from_negative = k - from_positive
    nearness = values.abs().neg_()
    of_positive = nearness.masked_fill(negative, -torch.inf)
    # The last use of nearness: it may be written to.
    of_negative = nearness.masked_fill_(~negative, -torch.inf)
    chosen = top(of_positive, from_positive)
    chosen = chosen | top(of_negative, from_negative)
    return positions(chosen)
