"""The thesis's DynPrune: prune a little too much by magnitude, then restore at random, residuals kept on the server.

At each round, with ``share = fraction/2 (1 + cos(pi t / T))`` and ``rate+ = rate + (1 - rate) share``: a layer zeroes
its ``n rate+`` smallest magnitudes, then ``n (rate+ - rate)`` of the zeroed ones return at random, with the value that
they had. The server's vector stays dense: a pruned weight keeps its last ("residual") value, is not sent, and competes
again at the next pruning. Corrected against print: the pruning uses rate+ (printed: rate), the restore count is the
difference. ``every = 1`` is the thesis's text.
"""

import torch

from fedmpi.core.mask import Distribution, budgets, check, cosine_decay, draw, never_moves, top
from fedmpi.core.parts import Pruner, Round


def residual(sparsity: float = 0.8, distribution: Distribution = "erk", every: int = 1,
             fraction: float = 0.1, end: float = 1.0):
    """Magnitude pruning of a dense server model, with random returns at their old values.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by pruning, DynPrune.
    Up: as static.
    Down: as static, and the mask's changes every round; residual values stay on the server.
    Example: fedmpi train --strategy thesis-text --pruner residual:sparsity=0.9
    """
    check(sparsity, distribution, "random", every, fraction)

    def prune(layout, x, returning, gen):
        mask = torch.zeros(layout.Q, dtype=torch.bool)
        target = budgets(layout, sparsity, distribution)
        rate = sparsity + (1 - sparsity) * returning
        sures = budgets(layout, rate, distribution, least=0) if rate < 1 else [0] * len(target)
        for slot, kept, sure in zip(layout.weights, target, sures):
            sure = min(sure, kept)
            chosen = top(x[slot.span].abs(), sure)
            mask[slot.span] = chosen | draw(~chosen, kept - sure, gen)
        assert layout.kept(mask) == target
        return mask

    def share(schedule):
        """The share of weights that return when the mask of the next round is made; None where the mask stays."""
        stays = schedule.t % every or schedule.t >= schedule.rounds
        return None if stays else cosine_decay(fraction, schedule.t + 1, end * schedule.rounds)

    def start(layout, x, schedule, gen):
        return {}, prune(layout, x, share(schedule), gen)

    def evolve(state, mask, x, replies, schedule, gen):
        returning = share(schedule)
        if returning is None:
            return state, mask
        return state, prune(replies.layout, x, returning, gen)

    def notes(facts):
        return never_moves(lambda t: share(Round(t, facts.rounds)) is not None, facts.rounds,
                           f"every={every} leaves it no round before the last one")

    return Pruner(start, evolve, residuals=True, notes=notes, planned=share)
