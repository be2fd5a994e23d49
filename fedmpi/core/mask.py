"""Which weights live: budgets a layer, and exact selections inside a layer.

A mask is bool (Q,) over the prunable region of a layout, False on its padding. Sparsity is the fraction of zeros.
"""

import math
from typing import Literal, get_args

import numpy as np
import torch

from fedmpi.core.errors import UserError

MIN_KEPT = 16  # weights a layer keeps whatever the rule says, against layer collapse
Distribution = Literal["uniform", "first-dense", "er", "erk", "thesis"]    # of densities over layers
Init = Literal["random", "magnitude"]                       # by what the first mask is chosen


def check(sparsity, distribution, init="random", every=1, fraction=0.0):
    """Raise ValueError for hyper-parameters that no pruner can work with, before anything is built."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    for name, value, known in (("distribution", distribution, Distribution), ("init", init, Init)):
        if value not in get_args(known):
            raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
    if every < 1:
        raise ValueError(f"every must be at least 1 round, got {every}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"the share of weights to move must be in [0, 1], got {fraction}")


def budgets(layout, sparsity, distribution="erk", least=MIN_KEPT):
    """Kept weights a layer: ints that sum to ``round((1 - sparsity) * weights)`` exactly, at least ``least`` a layer
    (or all of a smaller one); UserError where that cannot be.

    ``distribution`` is one of

    * ``uniform``: the same density in every layer, the first one too;
    * ``first-dense``: the first prunable layer whole, the same density in all others. That is what RigL's paper
      (arXiv 1911.11134) calls uniform; there the others have the sparsity asked for, here the whole model has it;
    * ``er``, ``erk``: Erdos-Renyi densities as RigL normalises them, without and with the kernel's sizes;
    * ``thesis``: sparsities are rescaled, as FedDST's code does (arXiv 2112.09824).
    """
    check(sparsity, distribution)
    rules = {"uniform": _uniform, "first-dense": _first_dense, "er": _er, "erk": _erk, "thesis": _thesis}
    densities = rules[distribution]([slot.shape for slot in layout.weights], 1 - sparsity)
    total = round((1 - sparsity) * layout.num_weights)
    return _round([slot.size for slot in layout.weights], densities, total, _low(layout, distribution, least), least)


def bearable(layout, distribution="erk", least=MIN_KEPT):
    """The largest sparsity at which every layer keeps ``least`` weights, and the first one all where it is to be
    dense."""
    return 1 - sum(_low(layout, distribution, least)) / layout.num_weights


def _low(layout, distribution, least):
    """How many weights each layer keeps at least."""
    low = [min(slot.size, least) for slot in layout.weights]
    if distribution == "first-dense":
        low[0] = layout.weights[0].size
    return low


def _uniform(shapes, density):
    return [density] * len(shapes)


def _first_dense(shapes, density):
    first, *others = [math.prod(shape) for shape in shapes]
    left = density * (first + sum(others)) - first
    if left < 0:
        raise UserError(f"distribution=first-dense keeps all {first:,} weights of the first layer, and sparsity "
                        f"{1 - density:.4g} leaves only {left + first:,.0f} of the model: take another distribution, "
                        f"or a sparsity of {sum(others) / (first + sum(others)):.3f} at most")
    return [1.0] + [left / max(sum(others), 1)] * len(others)


def _er(shapes, density):
    return _rescale(shapes, density, [(s[0] + s[1]) / (s[0] * s[1]) for s in shapes])


def _erk(shapes, density):
    return _rescale(shapes, density, [sum(s) / math.prod(s) for s in shapes])


def _rescale(shapes, density, raw):
    """Densities eps * raw that meet the budget; layers that would pass 1 are dense and leave the sum."""
    sizes = [math.prod(s) for s in shapes]
    dense = set()
    while len(dense) < len(shapes):
        rest = [i for i in range(len(shapes)) if i not in dense]
        budget = density * sum(sizes) - sum(sizes[i] for i in dense)
        eps = budget / sum(raw[i] * sizes[i] for i in rest)
        top = max(raw[i] for i in rest)
        if eps * top <= 1:
            return [1.0 if i in dense else eps * raw[i] for i in range(len(shapes))]
        dense |= {i for i in rest if raw[i] == top}
    return [1.0] * len(shapes)


def _thesis(shapes, density):
    """``S_l = (1 - raw_l) S sum(n) / sum((1 - raw) n)``: nearly uniform, since raw is tiny for most layers."""
    sizes = [math.prod(s) for s in shapes]
    raw = [sum(s) / n for s, n in zip(shapes, sizes)]
    scale = (1 - density) * sum(sizes) / sum((1 - r) * n for r, n in zip(raw, sizes))
    return [1 - (1 - r) * scale for r in raw]


def _round(sizes, densities, total, low, least):
    """Whole numbers near ``densities * sizes`` that sum to ``total``, between ``low``, which is ``least`` for most, and
    the layer's size."""
    if total < sum(low):
        raise UserError(f"sparsity {1 - total / sum(sizes):.4f} leaves {total} weights, but every layer keeps at least "
                        f"{least}; this model bears at most sparsity {1 - sum(low) / sum(sizes):.4f}")
    kept = [min(n, max(lo, math.floor(d * n))) for n, d, lo in zip(sizes, densities, low)]
    order = sorted(range(len(sizes)), key=lambda i: kept[i] - densities[i] * sizes[i])   # most below its share first
    while (missing := total - sum(kept)) != 0:
        step = 1 if missing > 0 else -1
        room = [i for i in order if (kept[i] < sizes[i] if step > 0 else kept[i] > low[i])]
        each, extra = divmod(abs(missing), len(room))
        for rank, i in enumerate(room):
            bound = sizes[i] - kept[i] if step > 0 else kept[i] - low[i]
            kept[i] += step * min(bound, each + (rank < extra))
    return kept


SAMPLE = 1 << 14         # scores from whose order a bound of the k-th largest is guessed


def largest(scores, k):
    """int64 (k,): the positions of the ``k`` largest of ``scores (n,)`` without NaN, in any order; on the CPU sorted,
    of equal ones those of least position. Where ``k`` is few of many, only scores above a bound, which a sample tells,
    are partitioned; were they too few, all are."""
    if scores.is_cuda:
        return torch.topk(scores, k, sorted=False).indices
    values, n = scores.numpy(), len(scores)
    if n > 64 * SAMPLE and 0 < 10 * k < n:
        sample = np.sort(values[:: n // SAMPLE])
        bound = sample[-min(int(1.1 * k / n * len(sample)) + 40, len(sample))]
        places = np.flatnonzero(values >= bound)
        if len(places) >= k:
            return torch.from_numpy(places[positions(top(torch.from_numpy(values[places]), k)).numpy()])
    return positions(top(scores, k))


def top(scores, k):
    """bool (n,): where the ``k`` largest of ``scores (n,)`` without NaN are; of equal ones, on the CPU, the first.
    There a partition finds the k-th, by vector instructions ten times as fast as topk."""
    if scores.is_cuda:
        return torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, largest(scores, k), True)
    if not 0 < k < len(scores):
        return torch.full(scores.shape, k > 0)
    values = scores.numpy()
    least = np.partition(values, len(values) - k)[len(values) - k]
    chosen = values >= least
    surplus = np.count_nonzero(chosen) - k
    if surplus:
        chosen[np.flatnonzero(values == least)[-surplus:]] = False
    return torch.from_numpy(chosen)


def falling(sizes, places):
    """int64 (k,): the sorted positions ``places (k,)`` in the order of ``sizes (n,)`` float32 >= 0 on the CPU, the
    largest first, of equal ones the first. It sorts keys of value and position: numpy sorts integers by vector
    instructions."""
    bits = sizes.index_select(0, places).view(torch.int32)            # in the order of the values, as none is negative
    keys = (torch.iinfo(torch.int32).max - bits).long().bitwise_left_shift_(32).bitwise_or_(places)
    keys.numpy().sort()
    return keys.bitwise_and_(0xFFFFFFFF)


def positions(mask):
    """int64: where ``mask (n,) bool`` is True."""
    return torch.nonzero(mask).flatten() if mask.is_cuda else torch.from_numpy(np.flatnonzero(mask.numpy()))


def by_layer(layout, places):
    """``places``, sorted positions in the vector, cut into those of each layer's weights; others are left out."""
    edges = places.new_tensor([(slot.offset, slot.offset + slot.size) for slot in layout.weights])
    return [places[start:end] for start, end in torch.searchsorted(places, edges).tolist()]


def living(layout, mask):
    """The positions in the vector of each layer's kept weights."""
    return by_layer(layout, positions(mask) if mask.is_cuda else layout.support(mask))


def draw(free, k, gen):
    """bool (n,): ``k`` of the places where ``free (n,) bool`` on the CPU is True, uniformly without replacement; all of
    them where there are no more.

    Places are drawn with replacement until ``k`` different ones have been hit; which ones, no place being told from
    another, is as likely for any ``k``. A batch is as large as what is missing, so it never hits too many.
    """
    count = int(np.count_nonzero(free.numpy()))
    if k >= count:
        return free.clone()
    if 2 * k > count:                                      # fewer to leave out
        return free & ~draw(free, count - k, gen)
    if 2 * count < len(free):                              # most draws would miss
        chosen = torch.zeros_like(free)
        chosen.numpy()[positions(free).numpy()[draw(torch.ones(count, dtype=torch.bool), k, gen).numpy()]] = True
        return chosen
    left, missing = free.numpy().copy(), k
    while missing:
        left[gen.integers(len(left), size=missing)] = False
        missing = k - (count - np.count_nonzero(left))
    return free & ~torch.from_numpy(left)


def random_mask(layout, kept, gen):
    """bool (Q,): ``kept`` random weights a layer."""
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, k in zip(layout.weights, kept):
        mask[slot.span] = draw(torch.ones(slot.size, dtype=torch.bool), k, gen)
    return mask


def top_mask(layout, scores, kept):
    """bool (Q,): the ``kept`` weights of largest ``scores (Q,)`` or (P,) a layer."""
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, k in zip(layout.weights, kept):
        mask[slot.span] = top(scores[slot.span], k)
    assert layout.kept(mask) == list(kept), "a layer cannot hold that many weights"
    return mask


def top_among(layout, layers, x, kept):
    """bool (Q,): the ``kept`` weights of largest ``|x|``, ``x (P,)``, among the positions ``layers`` of each layer."""
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for places, k in zip(layers, kept):
        chosen = largest(x.index_select(0, places).abs_(), k)
        mask.numpy()[places.numpy()[chosen.numpy()]] = True              # faster than torch's by half
    assert layout.kept(mask) == list(kept), "a layer has fewer candidates than weights to keep"
    return mask


def first_mask(layout, x, kept, how, gen):
    """The first mask, ``how`` is ``random`` (as SET and RigL start) or ``magnitude``."""
    return random_mask(layout, kept, gen) if how == "random" else top_mask(layout, x.abs(), kept)


def nearest_zero(values, k):
    """int64 (k,): the positions of the ``k`` smallest magnitudes of ``values (m,)``."""
    return largest(values.abs().neg_(), k)


def swap(layout, mask, counts, x, grow, drop=nearest_zero):
    """A new mask in which ``counts[l]`` weights a layer were dropped and as many grown; the kept counts stay.

    ``drop(values (m,), k)`` returns the positions of the ``k`` of a layer's kept values, of ``x (P,)``, that go;
    ``grow(slot, k)``, bool (slot.size,), where its ``k`` new ones live, among those pruned before: a weight just
    dropped may not return in the same update.
    """
    new = mask.clone()
    for slot, live, count in zip(layout.weights, living(layout, mask), counts):
        k = min(count, len(live), slot.size - len(live))
        if k == 0:
            continue
        new[slot.span] |= grow(slot, k)
        new.index_fill_(0, live.index_select(0, drop(x.index_select(0, live), k)).long(), False)
    assert layout.kept(new) == layout.kept(mask), "an update changed the number of kept weights"
    return new


def never_moves(moves, rounds, why):
    """A line for the user where the mask changes after none of the rounds 1..``rounds``, for which ``why`` is the
    reason; ``moves(t)`` says whether it may after round t."""
    if any(moves(t) for t in range(1, rounds + 1)):
        return
    yield f"the mask never moves in {rounds} rounds, as in static: {why}"


def never_swaps(layout, kept, share, rounds, why):
    """The same where round t swaps ``share(t)`` of the ``kept`` weights of every layer that is not dense, rounded down
    to whole weights."""
    most = max((k for slot, k in zip(layout.weights, kept) if k < slot.size), default=0)
    return never_moves(lambda t: math.floor(share(t) * most) > 0, rounds, why)


def cosine_decay(start, t, end):
    """``start / 2 * (1 + cos(pi t / end))``, 0 from ``end`` on: the share of weights that an update swaps."""
    return start / 2 * (1 + math.cos(math.pi * t / end)) if t < end else 0.0
