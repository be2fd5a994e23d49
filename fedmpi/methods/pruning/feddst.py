"""FedDST's masks: clients prune and grow while they train, the server prunes the union back (arXiv 2112.09824).

On every ``every``-th round before ``end`` of the rounds, after local epoch ``after`` a client drops, a layer,
``alpha_r`` of its kept weights by magnitude, grows as many at the largest dense gradients of its last mini-batch
(plain loss), and trains on. ``alpha_r`` falls from ``alpha`` to 0 by cosine. The server keeps, a layer, the largest
magnitudes of the averaged model within the budget. Deliberately unlike the authors' program, where these are slips:
growth never chooses active positions, the drop share does decay, biases are not in the budgets. The budgets are ERK's
as the paper says; the program's own rule is ``distribution=thesis``.
"""

import math

import numpy as np
import torch

from fedmpi.core.mask import (Distribution, Init, budgets, by_layer, check, cosine_decay,
                              first_mask, never_swaps, swap, top, top_among)
from fedmpi.core.parts import Probe, Pruner, Round


def feddst(sparsity: float = 0.8, distribution: Distribution = "erk", init: Init = "magnitude",
           every: int = 15, alpha: float = 0.05, after: int = 0, end: float = 0.75):
    """Masks adjusted by each client, averaged over holders, pruned back by the server.

    Paper: Bibikar et al. 2022, "Federated Dynamic Sparse Training: Computing Less, Communicating Less, Yet Learning
        Better", arXiv 2112.09824.
    Up: as static; in adjusting rounds also the positions that a client's own mask has changed.
    Down: as static, and the mask's changes after it moved.
    Example: fedmpi train --strategy feddst --pruner feddst:every=2
    """
    check(sparsity, distribution, init, every, alpha)
    if after < 0:
        raise ValueError(f"after must be a local epoch, 0 the first, got {after}")

    def start(layout, x, schedule, gen):
        return {}, first_mask(layout, x, budgets(layout, sparsity, distribution), init, gen)

    def share(schedule):
        return 0.0 if schedule.t % every else cosine_decay(alpha, schedule.t, end * schedule.rounds)

    def probe(task):
        if share(task.schedule) == 0:
            return Probe()
        layout = task.layout
        last = torch.zeros_like(task.g)

        def epoch(e):
            if e != min(after, task.epochs - 1):
                return False
            counts = [math.floor(share(task.schedule) * kept) for kept in layout.kept(task.mask)]
            task.mask.copy_(swap(layout, task.mask, counts, task.x, lambda slot, k: top(
                last[slot.span].abs().masked_fill_(task.mask[slot.span], -1), k)))
            task.live[: layout.Q] = task.mask
            return True

        return Probe(step=last.copy_, epoch=epoch, dense=min(task.batch_size, len(task.labels)))

    def evolve(state, mask, x, replies, schedule, gen):
        if replies.updates.B is None:
            return state, mask
        layout, updates = replies.layout, replies.updates
        held = np.flatnonzero(np.logical_or.reduce(updates.B.numpy(), axis=0))     # what every client dropped is gone
        layers = by_layer(layout, updates.support[torch.from_numpy(held)])
        return state, top_among(layout, layers, x, budgets(layout, sparsity, distribution))

    def notes(facts):
        kept = budgets(facts.layout, sparsity, distribution)
        yield from never_swaps(facts.layout, kept, lambda t: share(Round(t, facts.rounds)),
                               facts.rounds, f"every={every}, alpha={alpha} and end={end} leave it "
                               "nothing to move")
        if "after" in facts.given and after >= facts.epochs:
            yield (f"after={after} is beyond the {facts.epochs} local epochs, which count from 0: masks move "
                   "after the last one, and what has grown is not trained in that round")

    return Pruner(start, evolve, probe, moves=True, notes=notes, planned=share)
