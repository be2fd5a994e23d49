"""RigL in federated learning: drop by magnitude, grow by the clients' dense gradients.

Every ``every`` rounds until ``end`` of them, in each layer l (arXiv 1911.11134),

    k_l = floor(share active_l),            share falls by cosine from ``fraction`` to 0
    drop the k_l smallest magnitudes;       grow the k_l largest mean gradients, at 0

The federated form is the thesis's extension: each client takes the mean dense gradient of
``batches`` mini-batches at the received model and sends, a layer, its ``oversample * k_l`` largest
entries among pruned positions: position and 16-bit value. The server averages them with the
round's weights (missing = 0). A weight just dropped may not return in the same update.

The paper's "uniform" keeps the first layer dense: here that is ``distribution=first-dense``.
``uniform`` prunes it as all others.
"""

import math

import numpy as np
import torch

from fedmpi.compute.sgd import dense_gradient
from fedmpi.core.effect import needs
from fedmpi.core.mask import (Distribution, Init, check, cosine_decay, draw, largest, never_swaps,
                              positions, swap)
from fedmpi.core.parts import Probe, Pruner, Round
from fedmpi.methods.pruning.pattern import (drawn_scores, entries, entries_mask, first,
                                            kept_weights, pattern_of, patterned, swap_in_groups)
from fedmpi.methods.pruning.set import num_swaps


@needs(sparsity="nm=none", distribution="nm=none")
def rigl(sparsity: float = 0.8, distribution: Distribution = "erk", init: Init = "random",
         every: int = 6, fraction: float = 0.3, end: float = 0.75, batches: int = 8,
         oversample: float = 2.0, block: str = "none", nm: str = "none"):
    """Drop near zero, grow by gradient.

    The paper's uniform, with a dense first layer, is ``distribution=first-dense``; ``uniform``
    prunes the first layer too.

    ``block=8`` keeps or prunes blocks of 8 x 8 weights, ``block=16x1`` of 16 outputs and one
    input; ``nm=2:4`` keeps 2 of each 4 neighbours along the inputs.

    Paper: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners", arXiv 1911.11134;
        in federated learning an extension of the thesis.
    Up: as static; in growing rounds also position and a 16-bit value of the largest gradients,
        oversample times as many as will grow.
    Down: as static, and the mask's changes after it moved.
    Example: fedmpi train --strategy fedavg --pruner rigl:every=3
    """
    check(sparsity, distribution, init, every, fraction)
    pattern = pattern_of(block, nm)
    if oversample < 1 or batches < 1:
        raise ValueError("oversample and batches must be at least 1, got "
                         f"{oversample} and {batches}")

    def start(layout, x, now, gen):
        kept = kept_weights(pattern, layout, sparsity, distribution)
        return {}, first(pattern, layout, x, kept, init, gen)

    def share(now):
        """The share of a layer's kept weights that is swapped; 0 in rounds without an update."""
        if now.t % every:
            return 0.0
        return cosine_decay(fraction, now.t, end * now.rounds)

    def counts(layout, mask, now):
        """Weights to swap a layer; None in rounds without an update."""
        swapped = share(now)
        if not swapped:
            return None
        return num_swaps(layout, mask, swapped)

    def probe(task):
        layout = task.layout
        mask = entries_mask(layout, task.mask)
        swaps = counts(layout, mask, task.now)
        if swaps is None:
            return Probe()
        gradient = entries(layout, dense_gradient(task, batches))
        # Made now: training moves the model on.
        report = largest_pruned(layout, mask, gradient, swaps, oversample)
        most = batches * task.batch_size
        samples = min(most, len(task.labels))
        return Probe(report=lambda: report, extra=samples)

    def evolve(state, mask, x, replies, now, gen):
        layout = replies.layout
        swaps = counts(layout, mask, now)
        if swaps is None:
            return state, mask
        gradients = mean_reported(layout, replies.reports, replies.weights)
        return state, _swapped(pattern, layout, mask, swaps, x, gradients, gen)

    def notes(facts):
        if distribution == "uniform":
            yield ("distribution=uniform prunes the first layer as all others; the paper's uniform "
                   "keeps it dense, which is distribution=first-dense here")

        def share_of(t):
            """The share that is swapped in round t."""
            return share(Round(t, facts.rounds))

        kept = kept_weights(pattern, facts.layout, sparsity, distribution)
        reason = f"every={every}, fraction={fraction} and end={end} leave it nothing to move"
        yield from never_swaps(facts.layout, kept, share_of, facts.rounds, reason)

    part = Pruner(start, evolve, probe, notes=notes, planned=share)
    return patterned(part, pattern)


def _swapped(pattern, layout, mask, swaps, x, gradients, gen):
    """(Q,) bool: ``mask`` after ``swaps`` a layer, which grow by the mean ``gradients (Q,)``."""

    def grow(slot, k):
        """bool: the places of the layer's k new weights."""
        pruned = ~mask[slot.span]
        return _grow(gradients[slot.span], pruned, k, gen)

    def score(slot):
        """float32 (size,): the mean gradient's size; at random below 0 if not reported."""
        sizes = gradients[slot.span].abs()
        return torch.where(sizes > 0, sizes, -drawn_scores(slot.size, gen))

    if pattern.groups:
        return swap_in_groups(layout, mask, swaps, x, score, pattern.groups)
    return swap(layout, mask, swaps, x, grow)


# --- on clients ---

def largest_pruned(layout, mask, gradient, swaps, oversample):
    """The report: the largest gradients at pruned positions, a share a layer.

    ``index`` int32, sorted; ``value`` float16 in units of ``scale (1,)`` float32, the largest of
    them."""
    pieces = []
    for slot, k in zip(layout.weights, swaps):
        kept = mask[slot.span]
        num_pruned = int(torch.count_nonzero(~kept))
        wanted = min(math.ceil(oversample * k), num_pruned)
        sizes = gradient[slot.span].abs()
        # Below all others: kept weights cannot grow.
        sizes.masked_fill_(kept, -1)
        pieces.append(slot.offset + largest(sizes, wanted))
    index = torch.cat(pieces)
    # On the CPU they come sorted.
    if index.is_cuda:
        index = index.sort().values
    value = gradient[index].cpu().numpy()
    largest_size = np.abs(value).max(initial=0.0)
    # Gradients of 0 have no unit: 0 / 1e-30 is still 0.
    scale = np.float32(max(largest_size, 1e-30))
    return {
        "index": index.int().cpu().numpy(),
        "value": (value / scale).astype(np.float16),
        "scale": scale[None],
    }


# --- on the server ---

def mean_reported(layout, reports, weights):
    """float32 (Q,): the mean gradient by the clients' ``weights (C,)``; 0 for all not reported."""
    mean = torch.zeros(layout.Q)
    for weight, report in zip(weights, reports):
        gradient = torch.from_numpy(report["value"]).float()
        index = torch.from_numpy(report["index"])
        unit = report["scale"][0]
        factor = float(weight * unit)
        mean.index_add_(0, index, gradient, alpha=factor)
    return mean


def _grow(score, free, k, gen):
    """bool (n,): the ``k`` places of largest ``|score|``, ``score (n,)``, among ``free (n,) bool``.

    If fewer were reported, those and the rest at random."""
    reported = np.flatnonzero(score.numpy() != 0)
    places = torch.from_numpy(reported)
    # Only pruned weights can grow.
    places = places[positions(free.index_select(0, places))]
    chosen = torch.zeros_like(free)
    missing = k - len(places)
    if missing > 0:
        chosen.index_fill_(0, places, True)
        drawn = draw(free & ~chosen, missing, gen)
        return chosen | drawn
    sizes = score.index_select(0, places).abs_()
    grown = places[largest(sizes, k)]
    return chosen.index_fill_(0, grown, True)
