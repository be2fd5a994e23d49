"""NAME: a share of the kept weights moves at random each round.

A control for methods that choose which weights move.
"""

import torch

from fedmpi.core.mask import budgets, check, draw, random_mask, swap
from fedmpi.core.parts import Pruner


def NAME(sparsity: float = 0.8, fraction: float = 0.1):
    """Move weights at random.

    Paper: none: a first sketch.
    Up: (1 - sparsity) of the values of a dense model.
    Down: as many, and the mask's changes.
    Example: fedmpi train --pruner NAME:NAME:sparsity=0.9
    """
    check(sparsity, "erk", fraction=fraction)

    def init(layout, x, now, gen):
        # The state, and the first mask (Q,) bool: how many weights of each layer live, and which.
        kept = budgets(layout, sparsity, "erk")
        return {}, random_mask(layout, kept, gen)

    def evolve(state, mask, x, replies, now, gen):
        # After each merge, a new mask. ``swap`` takes layer by layer as many away as it gives.
        def grow(slot, k):
            pruned = ~mask[slot.span]
            return draw(pruned, k, gen)

        def drop(values, k):
            order = gen.permutation(len(values))
            return torch.from_numpy(order[:k])

        layout = replies.layout
        counts = [int(fraction * kept) for kept in layout.kept(mask)]
        return state, swap(layout, mask, counts, x, grow, drop)

    return Pruner(init, evolve)
