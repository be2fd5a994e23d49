"""RigL in federated learning: drop by magnitude, grow where the clients' dense gradients are largest
(arXiv 1911.11134; the federated form is the thesis's extension).

Every ``every`` rounds until ``end`` of them, each client takes the mean dense gradient of ``batches`` mini-batches at
the received model and sends, a layer, its ``oversample * k_l`` largest entries among pruned positions: position and
16-bit value. The server averages them with the round's weights (missing = 0), drops the ``k_l = floor(share *
active)`` smallest magnitudes and grows the ``k_l`` largest means, ``share`` falling by cosine from ``fraction``. A
weight dropped may not return in the same update; new weights start at 0.

What the paper calls uniform keeps the first layer dense: that is ``distribution=first-dense``. ``uniform`` prunes it
as all others.
"""

import math

import numpy as np
import torch

from fedmpi.compute.sgd import dense_gradient
from fedmpi.core.mask import (Distribution, Init, budgets, check, cosine_decay, draw, first_mask,
                              largest, never_swaps, positions, swap)
from fedmpi.core.parts import Probe, Pruner, Round


def rigl(sparsity: float = 0.8, distribution: Distribution = "erk", init: Init = "random",
         every: int = 6, fraction: float = 0.3, end: float = 0.75, batches: int = 8,
         oversample: float = 2.0):
    """Drop near zero, grow by gradient.

    The paper's uniform, whose first layer is dense, is ``distribution=first-dense``; ``uniform`` prunes that one too.

    Paper: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners", arXiv 1911.11134; in federated learning
        an extension of the thesis.
    Up: as static; in the rounds that grow also position and a 16-bit value of the largest gradients, oversample times
        what will grow.
    Down: as static, and the mask's changes after it moved.
    Example: fedmpi train --strategy fedavg --pruner rigl:every=3
    """
    check(sparsity, distribution, init, every, fraction)
    if oversample < 1 or batches < 1:
        raise ValueError(f"oversample and batches must be at least 1, got {oversample} and {batches}")

    def start(layout, x, schedule, gen):
        return {}, first_mask(layout, x, budgets(layout, sparsity, distribution), init, gen)

    def share(schedule):
        """The share of a layer's kept weights that are swapped; 0 on rounds without an update."""
        return 0.0 if schedule.t % every else cosine_decay(fraction, schedule.t, end * schedule.rounds)

    def counts(layout, mask, schedule):
        """Weights to swap a layer; None on rounds without an update."""
        swapped = share(schedule)
        return [math.floor(swapped * kept) for kept in layout.kept(mask)] if swapped else None

    def probe(task):
        swaps = counts(task.layout, task.mask, task.schedule)
        if swaps is None:
            return Probe()
        gradient = dense_gradient(task, batches)
        report = _largest_pruned(task.layout, task.mask, gradient, swaps, oversample)
        return Probe(report=lambda: report, extra=min(batches * task.batch_size, len(task.labels)))

    def evolve(state, mask, x, replies, schedule, gen):
        layout = replies.layout
        swaps = counts(layout, mask, schedule)
        if swaps is None:
            return state, mask
        score = torch.zeros(layout.Q)
        for weight, report in zip(replies.weights, replies.reports):
            gradient = torch.from_numpy(report["value"]).float()
            score.index_add_(0, torch.from_numpy(report["index"]), gradient, alpha=float(weight * report["scale"][0]))
        return state, swap(layout, mask, swaps, x, lambda slot, k: _grow(score[slot.span], ~mask[slot.span], k, gen))

    def notes(facts):
        if distribution == "uniform":
            yield ("distribution=uniform prunes the first layer as all others; the paper's uniform keeps it dense, "
                   "which is distribution=first-dense here")
        kept = budgets(facts.layout, sparsity, distribution)
        yield from never_swaps(facts.layout, kept, lambda t: share(Round(t, facts.rounds)),
                               facts.rounds, f"every={every}, fraction={fraction} and end={end} leave it "
                               "nothing to move")

    return Pruner(start, evolve, probe, notes=notes, planned=share)


def _largest_pruned(layout, mask, gradient, swaps, oversample):
    """The report: the largest gradients at pruned positions, a share a layer, ``index`` int32 sorted, ``value`` float16
    in units of ``scale (1,)`` float32, the largest of them."""
    index = []
    for slot, k in zip(layout.weights, swaps):
        pruned = ~mask[slot.span]
        wanted = min(math.ceil(oversample * k), int(torch.count_nonzero(pruned)))
        sizes = gradient[slot.span].abs().masked_fill_(mask[slot.span], -1)
        index.append(slot.offset + largest(sizes, wanted))
    index = torch.cat(index)
    index = index.sort().values if index.is_cuda else index              # there they are sorted
    value = gradient[index].cpu().numpy()
    scale = np.float32(max(np.abs(value).max(initial=0.0), 1e-30))
    return {"index": index.int().cpu().numpy(), "value": (value / scale).astype(np.float16), "scale": scale[None]}


def _grow(score, free, k, gen):
    """bool (n,): the ``k`` places of largest ``|score|``, ``score (n,)``, among ``free (n,) bool``; where fewer were
    reported, those and the rest at random."""
    places = torch.from_numpy(np.flatnonzero(score.numpy() != 0))
    places = places[positions(free.index_select(0, places))]
    if len(places) < k:
        reported = torch.zeros_like(free).index_fill_(0, places, True)
        return reported | draw(free & ~reported, k - len(places), gen)
    chosen = places[largest(score.index_select(0, places).abs_(), k)]
    return torch.zeros_like(free).index_fill_(0, chosen, True)
