"""The choice of kept weights: budgets a layer, and exact selections inside a layer.

A mask is bool (Q,) over the prunable region of a layout, False on its padding. Sparsity is the
fraction of zeros.
"""

import math
from typing import Literal, get_args

import numpy as np
import torch

from fedmpi.core.errors import UserError
from fedmpi.core.words import plural

# Weights that a layer keeps whatever the rule says, against layer collapse.
MIN_KEPT = 16
# How densities differ over layers, see ``budgets``.
Distribution = Literal["uniform", "first-dense", "er", "erk", "thesis"]
# The criterion of the first mask.
Init = Literal["random", "magnitude"]


def check(sparsity, distribution, init="random", every=1, fraction=0.0):
    """Raise ValueError for hyper-parameters out of range, before a pruner is built."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    _check_choice("distribution", distribution, get_args(Distribution))
    _check_choice("init", init, get_args(Init))
    if every < 1:
        raise ValueError(f"every must be at least 1 round, got {every}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"the share of weights to move must be in [0, 1], got {fraction}")


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


# --- budgets ---


def budgets(layout, sparsity, distribution="erk", min_kept=MIN_KEPT):
    """Kept weights a layer: ints that sum to ``round((1 - sparsity) * weights)`` exactly.

    A layer keeps at least ``min_kept`` weights, or all of a smaller layer. UserError if the budget
    is too small. ``distribution`` is one of

    * ``uniform``: the same density in every layer, the first one too;
    * ``first-dense``: the first prunable layer whole, the same density in all others. RigL's paper
      (arXiv 1911.11134) calls this uniform; there the other layers have the given sparsity, here
      the whole model has it;
    * ``er``, ``erk``: Erdos-Renyi densities as RigL normalises them, without and with the kernel's
      sizes;
    * ``thesis``: sparsities are rescaled, as FedDST's code does (arXiv 2112.09824).

    In a layout of blocks these are kept blocks a layer, see ``_in_blocks``.
    """
    check(sparsity, distribution)
    if layout.whole is not None:
        kept = budgets(layout.whole, sparsity, distribution, min_kept)
        return _in_blocks(layout, kept)
    density = 1 - sparsity
    shapes = [slot.shape for slot in layout.weights]
    sizes = [slot.size for slot in layout.weights]
    densities = RULES[distribution](shapes, density)
    total = round(density * layout.num_weights)
    low = _low(layout, distribution, min_kept)
    return _round(sizes, densities, total, low, min_kept)


def _in_blocks(layout, kept):
    """Kept blocks a layer, from the ``kept`` weights a layer.

    The rounding of a layer passes to the next one, those of the largest blocks first: the sum is
    exact if any layer has single weights, else within half a block. No layer loses all.
    """
    areas = []
    for blocks, slot in zip(layout.weights, layout.whole.weights):
        areas.append(slot.size // blocks.size)
    num_blocks = [0] * len(areas)
    missing = 0
    for i in sorted(range(len(areas)), key=lambda i: -areas[i]):
        wanted = kept[i] + missing
        nearest = round(wanted / areas[i])
        least = min(kept[i], 1)
        most = layout.weights[i].size
        num_blocks[i] = min(max(nearest, least), most)
        missing = wanted - num_blocks[i] * areas[i]
    return num_blocks


def bearable(layout, distribution="erk", min_kept=MIN_KEPT):
    """The largest sparsity at which every layer keeps ``min_kept`` weights.

    With ``first-dense`` the first layer keeps all of its own. Of blocks: that of single weights.
    """
    layout = layout.whole or layout
    return 1 - sum(_low(layout, distribution, min_kept)) / layout.num_weights


def _low(layout, distribution, min_kept):
    """How many weights each layer keeps at least."""
    low = [min(slot.size, min_kept) for slot in layout.weights]
    if distribution == "first-dense":
        low[0] = layout.weights[0].size
    return low


def _uniform(shapes, density):
    return [density] * len(shapes)


def _first_dense(shapes, density):
    first, *others = [math.prod(shape) for shape in shapes]
    total = first + sum(others)
    left = density * total - first
    if left < 0:
        raise UserError(
            f"distribution=first-dense keeps all {first:,} weights of the first layer, "
            f"and sparsity {1 - density:.4g} leaves only {left + first:,.0f} of the model: "
            f"take another distribution, or a sparsity of {sum(others) / total:.3f} at most"
        )
    rest = left / max(sum(others), 1)
    return [1.0] + [rest] * len(others)


def _er(shapes, density):
    raw = []
    # Rows and columns alone count, whatever the size of the kernel.
    for rows, columns, *_ in shapes:
        raw.append((rows + columns) / (rows * columns))
    return _rescale(shapes, density, raw)


def _erk(shapes, density):
    raw = [sum(shape) / math.prod(shape) for shape in shapes]
    return _rescale(shapes, density, raw)


def _rescale(shapes, density, raw):
    """Densities eps * raw that meet the budget; layers above 1 become dense and leave the sum."""
    sizes = [math.prod(shape) for shape in shapes]
    budget = density * sum(sizes)
    densities = [1.0] * len(shapes)
    sparse = list(range(len(shapes)))
    while sparse:
        sparse_size = sum(sizes[i] for i in sparse)
        dense_size = sum(sizes) - sparse_size
        wanted = sum(raw[i] * sizes[i] for i in sparse)
        eps = (budget - dense_size) / wanted
        top = max(raw[i] for i in sparse)
        if eps * top <= 1:
            for i in sparse:
                densities[i] = eps * raw[i]
            break
        sparse = [i for i in sparse if raw[i] != top]
    return densities


def _thesis(shapes, density):
    """``S_l = (1 - raw_l) S sum(n) / sum((1 - raw) n)``: nearly uniform, as raw is mostly tiny."""
    sizes = [math.prod(shape) for shape in shapes]
    num_zeros = (1 - density) * sum(sizes)
    rest = []
    weighted = 0
    for shape, size in zip(shapes, sizes):
        share = 1 - sum(shape) / size
        rest.append(share)
        weighted += share * size
    scale = num_zeros / weighted
    return [1 - share * scale for share in rest]


RULES = {
    "uniform": _uniform,
    "first-dense": _first_dense,
    "er": _er,
    "erk": _erk,
    "thesis": _thesis,
}


def _round(sizes, densities, total, low, min_kept):
    """Whole numbers near ``densities * sizes`` that sum to ``total``.

    Each lies between ``low``, ``min_kept`` for most layers, and the layer's size.
    """
    if total < sum(low):
        sparsity = 1 - total / sum(sizes)
        most = 1 - sum(low) / sum(sizes)
        raise UserError(
            f"sparsity {sparsity:.4f} leaves {total} weights, but every layer keeps "
            f"at least {min_kept}; this model bears at most sparsity {most:.4f}"
        )
    layers = range(len(sizes))
    kept = []
    for i in layers:
        wanted = math.floor(densities[i] * sizes[i])
        wanted = max(low[i], wanted)
        kept.append(min(sizes[i], wanted))

    # The layers furthest below their share come first.
    surplus = [kept[i] - densities[i] * sizes[i] for i in layers]
    order = sorted(layers, key=lambda i: surplus[i])
    missing = total - sum(kept)
    while missing:
        bounds = sizes if missing > 0 else low
        _share_out(kept, missing, order, bounds)
        missing = total - sum(kept)
    return kept


def _share_out(kept, missing, order, bounds):
    """Change ``kept`` in place by ``missing`` in sum, evenly in this order, up to its bounds.

    Layers that reach their bound leave some of it missing.
    """
    sign = 1 if missing > 0 else -1
    open_layers = [i for i in order if kept[i] != bounds[i]]
    share, extra = divmod(abs(missing), len(open_layers))
    for rank, i in enumerate(open_layers):
        room = abs(bounds[i] - kept[i])
        # The first layers take one weight more.
        wanted = share + (rank < extra)
        kept[i] += sign * min(room, wanted)


# --- selections ---

# Scores in whose order a bound of the k-th largest is guessed.
SAMPLE = 1 << 14


def largest(scores, k):
    """int64 (k,): the positions of the ``k`` largest of ``scores (n,)`` without NaN, in any order.

    On the CPU they are sorted, and of equal scores the first positions are taken. If ``k`` is
    small beside n, only scores above a bound, guessed from a sample, are partitioned; if these are
    too few, all are.
    """
    if scores.is_cuda:
        return torch.topk(scores, k, sorted=False).indices
    n = len(scores)
    if n > 64 * SAMPLE and 0 < 10 * k < n:
        values = scores.numpy()
        bound = _guessed_bound(values, k)
        places = np.flatnonzero(values >= bound)
        if len(places) >= k:
            candidates = torch.from_numpy(values[places])
            is_chosen = top(candidates, k)
            chosen = places[positions(is_chosen).numpy()]
            return torch.from_numpy(chosen)
    is_chosen = top(scores, k)
    return positions(is_chosen)


def _guessed_bound(values, k):
    """A value that more than ``k`` of the ``values (n,)`` probably reach, by a sample of them."""
    n = len(values)
    sample = np.sort(values[:: n // SAMPLE])
    size = len(sample)
    # A tenth more than its share, and 40 for small shares.
    rank = int(1.1 * k / n * size) + 40
    rank = min(rank, size)
    return sample[-rank]


def top(scores, k):
    """bool (n,): where the ``k`` largest of ``scores (n,)`` without NaN are.

    Of equal scores, on the CPU, the first are taken.
    """
    if scores.is_cuda:
        mask = torch.zeros_like(scores, dtype=torch.bool)
        return mask.index_fill_(0, largest(scores, k), True)
    if not 0 < k < len(scores):
        return torch.full(scores.shape, k > 0)
    values = scores.numpy()
    # By vector instructions a partition is ten times as fast as topk.
    rank = len(values) - k
    least = np.partition(values, rank)[rank]
    chosen = values >= least
    surplus = np.count_nonzero(chosen) - k
    if surplus:
        equal = np.flatnonzero(values == least)
        chosen[equal[-surplus:]] = False
    return torch.from_numpy(chosen)


def falling(sizes, places):
    """int64 (k,): the sorted positions ``places (k,)`` in falling order of their ``sizes``.

    ``sizes (n,)`` are float32 >= 0 on the CPU; of equal ones the first position comes first.
    """
    # Keys of value and position: numpy sorts integers by vector instructions. As no value is
    # negative, its bits are in the order of the values.
    values = sizes.index_select(0, places)
    bits = values.view(torch.int32)
    falling_bits = (torch.iinfo(torch.int32).max - bits).long()
    keys = falling_bits.bitwise_left_shift_(32).bitwise_or_(places)
    keys.numpy().sort()
    return keys.bitwise_and_(0xFFFFFFFF)


def positions(mask):
    """int64: where ``mask (n,) bool`` is True."""
    if mask.is_cuda:
        return torch.nonzero(mask).flatten()
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def by_layer(layout, places):
    """``places``, sorted positions in the vector, cut into those of each layer's weights.

    Positions of no layer are left out.
    """
    offsets = []
    for slot in layout.weights:
        span = slot.span
        offsets.append((span.start, span.stop))
    # One search for all layers.
    edges = torch.searchsorted(places, places.new_tensor(offsets))
    return [places[start:end] for start, end in edges.tolist()]


def living(layout, mask):
    """The positions in the vector of each layer's kept weights."""
    if mask.is_cuda:
        places = positions(mask)
    else:
        # Found once a mask; dense positions belong to no layer's weights.
        places = layout.support(mask)
    return by_layer(layout, places)


def draw(free, k, gen):
    """bool (n,): ``k`` of the places where ``free (n,) bool`` is True, without replacement.

    They are uniform, and all places if there are no more than k. ``free`` is on the CPU.
    """
    count = int(np.count_nonzero(free.numpy()))
    if k >= count:
        return free.clone()
    if 2 * k > count:
        # Fewer places are left out than chosen.
        return free & ~draw(free, count - k, gen)
    if 2 * count < len(free):
        # Most draws among all places would miss: draw among the free ones.
        chosen = draw(torch.ones(count, dtype=torch.bool), k, gen)
        return _among(free, chosen)
    left = _without(free.numpy(), count - k, gen)
    return free & ~torch.from_numpy(left)


def _among(free, chosen):
    """bool (n,): the places of ``chosen (count,) bool``, counted among those of ``free (n,)``."""
    mask = torch.zeros_like(free)
    places = positions(free).numpy()
    places = places[chosen.numpy()]
    mask.numpy()[places] = True
    return mask


def _without(free, count, gen):
    """A copy of ``free (n,) bool``, numpy's, in which only ``count`` places are still True."""
    # Places are drawn with replacement until enough different ones have been hit; any set of them
    # is as likely as any other, since all places are alike. A batch is as large as the number of
    # missing hits, so it never hits too many.
    left = free.copy()
    surplus = np.count_nonzero(left) - count
    while surplus:
        hits = gen.integers(len(left), size=surplus)
        left[hits] = False
        surplus = np.count_nonzero(left) - count
    return left


# --- masks ---


def random_mask(layout, kept, gen):
    """bool (Q,): ``kept`` random weights a layer."""
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, k in zip(layout.weights, kept):
        whole = torch.ones(slot.size, dtype=torch.bool)
        mask[slot.span] = draw(whole, k, gen)
    return mask


def top_mask(layout, scores, kept):
    """bool (Q,): the ``kept`` weights of largest ``scores (Q,)`` or (P,) a layer."""
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, k in zip(layout.weights, kept):
        span = slot.span
        mask[span] = top(scores[span], k)
    assert layout.kept(mask) == list(kept), "a layer cannot hold that many weights"
    return mask


def top_among(layout, layers, x, kept):
    """bool (Q,): the ``kept`` weights of largest ``|x|`` among the positions ``layers`` of each.

    The model is ``x (P,)``; ``layers`` has the candidates' positions of each layer.
    """
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for places, k in zip(layers, kept):
        sizes = x.index_select(0, places).abs_()
        chosen = places[largest(sizes, k)]
        # By numpy: torch takes twice the time.
        mask.numpy()[chosen.numpy()] = True
    assert layout.kept(mask) == list(kept), "a layer has fewer candidates than weights to keep"
    return mask


def first_mask(layout, x, kept, how, gen):
    """The first mask; ``how`` is ``random`` (as SET and RigL start) or ``magnitude``."""
    if how == "random":
        return random_mask(layout, kept, gen)
    return top_mask(layout, x.abs(), kept)


def nearest_zero(values, k):
    """int64 (k,): the positions of the ``k`` smallest magnitudes of ``values (m,)``."""
    return largest(values.abs().neg_(), k)


def swap(layout, mask, counts, x, grow, drop=nearest_zero):
    """A new mask with ``counts[l]`` weights a layer dropped and as many grown.

    ``drop(values (m,), k)`` returns the positions of the ``k`` values to drop among a layer's kept
    values, of ``x (P,)``. ``grow(slot, k)``, bool (slot.size,), gives the places of its ``k`` new
    weights among those pruned before: a weight just dropped may not return in the same update.
    """
    new = mask.clone()
    for slot, kept, count in zip(layout.weights, living(layout, mask), counts):
        pruned = slot.size - len(kept)
        k = min(count, len(kept), pruned)
        if k == 0:
            continue
        new[slot.span] |= grow(slot, k)
        values = x.index_select(0, kept)
        dropped = kept.index_select(0, drop(values, k))
        new.index_fill_(0, dropped.long(), False)
    assert layout.kept(new) == layout.kept(mask), "an update changed the number of kept weights"
    return new


# --- notes for the user ---


def never_moves(moves, rounds, why):
    """A line for the user if the mask changes after none of the rounds 1..``rounds``.

    ``why`` is the reason; ``moves(t)`` says whether the mask may change after round t.
    """
    if not any(moves(t) for t in range(1, rounds + 1)):
        yield f"the mask never moves in {plural(rounds, 'round')}, as in static: {why}"


def never_swaps(layout, kept, share, rounds, why):
    """``never_moves`` of a mask that swaps a share of its weights.

    Round t swaps ``share(t)`` of the ``kept`` weights of every sparse layer, rounded down to whole
    weights.
    """
    # A dense layer has no place to grow a weight.
    sparse = [k for slot, k in zip(layout.weights, kept) if k < slot.size]
    most = max(sparse, default=0)

    def moves(t):
        return math.floor(share(t) * most) > 0

    return never_moves(moves, rounds, why)


def cosine_decay(start, t, end):
    """``start / 2 * (1 + cos(pi t / end))``, 0 from ``end`` on: the share of weights to swap."""
    if t >= end:
        return 0.0
    angle = math.pi * t / end
    return start / 2 * (1 + math.cos(angle))
