"""The thesis's DynPrune: prune a little too much, then restore at random, residuals kept.

At each round, of a layer's n weights,

    share = fraction/2 (1 + cos(pi t / T)),        rate+ = rate + (1 - rate) share
    zero the n rate+ smallest magnitudes;          restore n (rate+ - rate) of them at random

with the value that they had. The server's vector stays dense: a pruned weight keeps its last
("residual") value, is not sent, and competes again at the next pruning. Corrected against print:
the pruning uses rate+ (printed: rate), the restore count is the difference. ``every = 1`` is the
thesis's text.
"""

import torch

from fedmpi.core.mask import (Distribution, budgets, check, cosine_decay, draw, never_moves, top)
from fedmpi.core.parts import Pruner, Round


def residual(sparsity: float = 0.8, distribution: Distribution = "erk", every: int = 1,
             fraction: float = 0.1, end: float = 1.0):
    """Magnitude pruning of a dense server model, with random returns at their old values.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by
        pruning, DynPrune.
    Up: as static.
    Down: as static, and the mask's changes every round; residual values stay on the server.
    Example: fedmpi train --strategy thesis-text --pruner residual:sparsity=0.9
    """
    check(sparsity, distribution, "random", every, fraction)

    def share(now):
        """The share of weights that return in the next round's mask; None if the mask stays."""
        if now.t % every:
            return None
        # After the last round nobody would train the new mask.
        if now.t >= now.rounds:
            return None
        next_round = now.t + 1
        return cosine_decay(fraction, next_round, end * now.rounds)

    def prune(layout, x, returning, gen):
        """bool (Q,): the next mask, with this share of returns."""
        kept = budgets(layout, sparsity, distribution)
        by_magnitude = surest(layout, returning)
        return restored(layout, x, kept, by_magnitude, gen)

    def surest(layout, returning):
        """How many weights a layer keeps by magnitude, at sparsity rate+."""
        rate = sparsity + (1 - sparsity) * returning
        # Everything returns at random.
        if rate >= 1:
            return [0] * len(layout.weights)
        return budgets(layout, rate, distribution, min_kept=0)

    def start(layout, x, now, gen):
        return {}, prune(layout, x, share(now), gen)

    def evolve(state, mask, x, replies, now, gen):
        returning = share(now)
        if returning is None:
            return state, mask
        return state, prune(replies.layout, x, returning, gen)

    def notes(facts):
        def moves(t):
            """Whether there is a new mask after round t."""
            return share(Round(t, facts.rounds)) is not None

        reason = f"every={every} leaves it no round before the last one"
        return never_moves(moves, facts.rounds, reason)

    return Pruner(start, evolve, keeps_pruned_values=True, notes=notes, planned=share)


def restored(layout, x, kept, by_magnitude, gen):
    """bool (Q,): ``kept`` weights a layer, the first ``by_magnitude``, all others at random."""
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, k, sure in zip(layout.weights, kept, by_magnitude):
        # Both are rounded, each for itself.
        sure = min(sure, k)
        chosen = top(x[slot.span].abs(), sure)
        returned = draw(~chosen, k - sure, gen)
        mask[slot.span] = chosen | returned
    assert layout.kept(mask) == kept
    return mask
