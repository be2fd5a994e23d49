"""FedDST's masks: clients prune and grow while they train, the server prunes the union back.

On every ``every``-th round before ``end`` of the rounds, after local epoch ``after``, each client
in each layer (arXiv 2112.09824)

    drops  floor(alpha_r active)  smallest magnitudes;      grows as many largest |gradients|, at 0

by the dense gradient of its last mini-batch (plain loss), and trains on. ``alpha_r`` falls from
``alpha`` to 0 by cosine. The server keeps, a layer, the largest magnitudes of the averaged model
within the budget.

Deliberately unlike slips of the authors' program: growth never chooses active positions, the drop
share does decay, biases are not in the budgets. The budgets are ERK's as the paper says; the
program's own rule is ``distribution=thesis``.
"""

import numpy as np
import torch

from fedmpi.core.effect import needs
from fedmpi.core.mask import (Distribution, Init, by_layer, check, cosine_decay, never_swaps,
                              swap, top, top_among)
from fedmpi.core.parts import Probe, Pruner, Round
from fedmpi.methods.pruning.pattern import (entries, entries_mask, first,
                                            kept_weights, pattern_of, patterned, swap_in_groups,
                                            top_in_groups, weights_mask)
from fedmpi.methods.pruning.set import num_swaps


@needs(sparsity="nm=none", distribution="nm=none")
def feddst(sparsity: float = 0.8, distribution: Distribution = "erk", init: Init = "magnitude",
           every: int = 15, alpha: float = 0.05, after: int = 0, end: float = 0.75,
           block: str = "none", nm: str = "none"):
    """Masks adjusted by each client, averaged over holders, pruned back by the server.

    ``block=8`` keeps or prunes blocks of 8 x 8 weights, ``block=16x1`` of 16 outputs and one
    input; ``nm=2:4`` keeps 2 of each 4 neighbours along the inputs.

    Paper: Bibikar et al. 2022, "Federated Dynamic Sparse Training: Computing Less, Communicating
        Less, Yet Learning Better", arXiv 2112.09824.
    Up: as static; in adjusting rounds also the positions that a client's own mask has changed.
    Down: as static, and the mask's changes after it moved.
    Example: fedmpi train --strategy feddst --pruner feddst:every=2
    """
    check(sparsity, distribution, init, every, alpha)
    pattern = pattern_of(block, nm)
    if after < 0:
        raise ValueError(f"after must be a local epoch, 0 the first, got {after}")

    def start(layout, x, now, gen):
        kept = kept_weights(pattern, layout, sparsity, distribution)
        return {}, first(pattern, layout, x, kept, init, gen)

    def share(now):
        """alpha_r: the share of a layer's kept weights that a client swaps; 0 if masks stay."""
        if now.t % every:
            return 0.0
        return cosine_decay(alpha, now.t, end * now.rounds)

    def probe(task):
        swapped = share(task.now)
        if swapped == 0:
            return Probe()
        gradient = torch.zeros_like(task.g)
        swap_epoch = min(after, task.epochs - 1)

        def epoch(e):
            """Swaps after the one epoch, and says so."""
            if e != swap_epoch:
                return False
            swap_mask(task, gradient, swapped, pattern.groups)
            return True

        # Only the last batch's dense gradient is used.
        samples = min(task.batch_size, len(task.labels))
        return Probe(step=gradient.copy_, epoch=epoch, dense=samples)

    def evolve(state, mask, x, replies, now, gen):
        updates = replies.updates
        # All clients hold the mask: nobody moved one.
        if updates.B is None:
            return state, mask
        layout = replies.layout
        if pattern.groups:
            sizes = held_sizes(layout, x, updates)
            return state, top_in_groups(layout, sizes, pattern.groups)
        kept = kept_weights(pattern, layout, sparsity, distribution)
        layers = by_layer(layout, held_by_anybody(updates))
        return state, top_among(layout, layers, x, kept)

    def notes(facts):
        def share_of(t):
            """The share that is swapped in round t."""
            return share(Round(t, facts.rounds))

        kept = kept_weights(pattern, facts.layout, sparsity, distribution)
        reason = f"every={every}, alpha={alpha} and end={end} leave it nothing to move"
        yield from never_swaps(facts.layout, kept, share_of, facts.rounds, reason)
        if "after" in facts.user_options and after >= facts.epochs:
            yield (f"after={after} is beyond the {facts.epochs} local epochs, which count from 0: "
                   "masks move after the last one, and what has grown is not trained in that round")

    part = Pruner(
        start, evolve, probe, moves=True, notes=notes, planned=share, watches=True)
    return patterned(part, pattern)


def swap_mask(task, gradient, share, groups=None):
    """Swaps this share of the task's mask in place, by the dense ``gradient (R,)``.

    ``groups`` are those of N:M masks, see ``fedmpi.methods.pruning.pattern``."""
    layout = task.layout
    mask = entries_mask(layout, task.mask)
    x = entries(layout, task.x)
    gradient = entries(layout, gradient)
    counts = num_swaps(layout, mask, share)

    def grow(slot, k):
        """bool: the places of the layer's k new weights."""
        sizes = gradient[slot.span].abs()
        # Kept weights cannot grow.
        sizes.masked_fill_(mask[slot.span], -1)
        return top(sizes, k)

    def score(slot):
        """float32 (size,): the gradient's size."""
        return gradient[slot.span].abs()

    if groups:
        new_mask = swap_in_groups(layout, mask, counts, x, score, groups)
    else:
        new_mask = swap(layout, mask, counts, x, grow)
    task.mask.copy_(weights_mask(layout, new_mask))
    task.trainable[: len(task.mask)] = task.mask


def held_sizes(layout, x, updates):
    """float32 (Q,): ``|x|`` of the weights that any client still holds, else -1."""
    held = held_by_anybody(updates).long()
    held = held[held < layout.Q]
    sizes = torch.full((layout.Q,), -1.0)
    sizes[held] = x[held].abs()
    return sizes


def held_by_anybody(updates):
    """int32, sorted: the kept positions that any client still holds."""
    anybody = np.logical_or.reduce(updates.B.numpy(), axis=0)
    columns = np.flatnonzero(anybody)
    return updates.support[torch.from_numpy(columns)]
