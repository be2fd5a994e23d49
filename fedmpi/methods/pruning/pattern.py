"""Masks that kernels can use: whole blocks of weights, or N of each M. Options of pruners.

``block=8`` keeps or prunes blocks of 8 x 8 weights, ``block=16x1`` of 16 outputs and one input. A
pruner of blocks is the pruner of weights, in a layout whose entries are blocks:

    size of a block      the sum of |w| over its weights
    score of growth      the sum of |gradient| over its weights
    kept                 the budget of the layer's weights, in whole blocks

``nm=2:4`` keeps the 2 largest of each 4 neighbours along the inputs, so sparsity is 1/2 in every
layer and the count is exact. One update moves at most one weight of a group: in as many groups as
weights are to move, those with the smallest kept magnitudes, the smallest one goes and the best
pruned one of the same group grows.

Both look at a layer as (outputs, inputs, kernel): in convolutions a block has all its weights at
one position of the kernel, and a group holds neighbouring channels. Layers that do not divide are
pruned weight by weight (blocks) or stay dense (N:M), and a line says so.
"""

from dataclasses import replace
from typing import NamedTuple

import torch

from fedmpi.core.layout import arranged
from fedmpi.core.mask import budgets, first_mask, largest


class Pattern(NamedTuple):
    """The shape of what is kept: blocks (rows, columns), or groups (kept, of); None: weights."""

    block: tuple | None = None
    groups: tuple | None = None


def pattern_of(block, nm):
    """The Pattern of the options ``block`` (8, 16x1 or none) and ``nm`` (2:4 or none)."""
    if block != "none" and nm != "none":
        raise ValueError(f"a mask has blocks or N of each M, got block={block} and nm={nm}: "
                         "leave one out")
    return Pattern(_block(block), _groups(nm))


def _block(text):
    """(rows, columns) of ``8`` or ``16x1``; None for ``none``."""
    if text == "none":
        return None
    rows, _, columns = text.partition("x")
    sizes = (rows, columns or rows)
    if not _are_counts(sizes):
        raise ValueError(f"block must be a size as 8, rows x columns as 16x1, or none, got {text}")
    return int(sizes[0]), int(sizes[1])


def _groups(text):
    """(kept, of) of ``2:4``; None for ``none``."""
    if text == "none":
        return None
    sizes = text.split(":")
    if len(sizes) != 2 or not _are_counts(sizes):
        raise ValueError(f"nm must be kept:of as 2:4, or none, got {text}")
    kept, of = int(sizes[0]), int(sizes[1])
    if kept >= of:
        raise ValueError(f"nm={text} keeps every weight: the first number must be the smaller one")
    return kept, of


def _are_counts(texts):
    """Whether all texts are whole numbers above 0."""
    return all(text.isdecimal() and int(text) > 0 for text in texts)


# --- for all pruners ---


def kept_weights(pattern, layout, sparsity, distribution):
    """Kept entries a layer, as ``fedmpi.core.mask.budgets``; with N:M those of the groups."""
    if pattern.groups is None:
        return budgets(layout, sparsity, distribution)
    kept, of = pattern.groups
    counts = []
    for slot in layout.weights:
        divides = _divides(slot.shape, (1, of))
        counts.append(slot.size * kept // of if divides else slot.size)
    return counts


def first(pattern, layout, x, kept, init, gen):
    """The first mask, as ``fedmpi.core.mask.first_mask``."""
    if pattern.groups is None:
        return first_mask(layout, x, kept, init, gen)
    if init == "magnitude":
        return top_in_groups(layout, x.abs(), pattern.groups)
    return top_in_groups(layout, drawn_scores(layout.Q, gen), pattern.groups)


def drawn_scores(n, gen):
    """float32 (n,) in (0, 1]: scores at random."""
    return 1 - torch.from_numpy(gen.random(n, dtype="float32"))


def patterned(part, pattern):
    """The Pruner ``part`` with masks of this pattern.

    For blocks all its functions get a layout of blocks, and x in blocks. Its probe gets the real
    task with that layout: see ``entries``, ``entries_mask`` and ``weights_mask``.
    """
    if pattern.groups is not None:
        return _in_groups(part, pattern.groups)
    if pattern.block is not None:
        return _in_blocks(part, pattern.block)
    return part


# --- blocks ---


def block_layout(layout, block):
    """The layout whose entries are the blocks (rows, columns) of a layout's weights."""
    shapes = []
    for slot in layout.weights:
        shapes.append((slot.name, _grid(slot.shape, block)))
    return replace(arranged(shapes, (), ()), whole=layout)


def _divides(shape, block):
    """Whether a layer of (outputs, inputs, *kernel) is made of whole blocks."""
    rows, columns = block
    return shape[0] % rows == 0 and shape[1] % columns == 0


def _grid(shape, block):
    """The shape of a layer in blocks; its own if it does not divide."""
    if not _divides(shape, block):
        return shape
    outputs, inputs, *kernel = shape
    rows, columns = block
    return outputs // rows, inputs // columns, *kernel


def _tiles(tensor, grid):
    """A view (down, rows, across, columns, kernel) of a layer's tensor in blocks."""
    outputs, inputs = tensor.shape[:2]
    down, across = grid[:2]
    return tensor.reshape(down, outputs // down, across, inputs // across, -1)


def entries(layout, values):
    """(P,) float32: the sums of ``|values|`` over each block; ``values`` of single weights.

    In a layout of weights: the values as they are."""
    if layout.whole is None:
        return values
    sums = torch.zeros(layout.P, device=values.device)
    for slot, blocks in zip(layout.whole.weights, layout.weights):
        tiles = _tiles(slot.of(values).abs(), blocks.shape)
        sums[blocks.span] = tiles.sum(dim=(1, 3)).flatten()
    return sums


def entries_mask(layout, mask):
    """bool (Q,): the kept blocks of a ``mask`` of single weights made of whole ones."""
    if layout.whole is None:
        return mask
    kept = torch.zeros(layout.Q, dtype=torch.bool, device=mask.device)
    for slot, blocks in zip(layout.whole.weights, layout.weights):
        tiles = _tiles(slot.of(mask), blocks.shape)
        # All weights of a block are alike.
        kept[blocks.span] = tiles[:, 0, :, 0].flatten()
    return kept


def weights_mask(layout, mask):
    """bool (Q of single weights,): the weights of the kept blocks of ``mask (Q,)``."""
    if layout.whole is None:
        return mask
    weights = torch.zeros(layout.whole.Q, dtype=torch.bool, device=mask.device)
    for slot, blocks in zip(layout.whole.weights, layout.weights):
        tiles = _tiles(slot.of(weights), blocks.shape)
        kept = _tiles(blocks.of(mask), blocks.shape)
        # A view of weights: it is filled in place.
        tiles.copy_(kept.expand_as(tiles))
    return weights


def _in_blocks(part, block):
    """The Pruner ``part``, in layouts of blocks."""

    def init(layout, x, now, gen):
        blocks = block_layout(layout, block)
        state, mask = part.init(blocks, entries(blocks, x), now, gen)
        return state, weights_mask(blocks, mask)

    def evolve(state, mask, x, replies, now, gen):
        blocks = block_layout(replies.layout, block)
        before = entries_mask(blocks, mask)
        sizes = entries(blocks, x)
        updates = _updates(blocks, replies.updates)
        replies = replies._replace(layout=blocks, updates=updates)
        state, after = part.evolve(state, before, sizes, replies, now, gen)
        if after is before:
            return state, mask
        return state, weights_mask(blocks, after)

    def probe(task):
        blocks = block_layout(task.layout, block)
        return part.probe(task._replace(layout=blocks))

    def masks(state, mask, x, layout, clients):
        blocks = block_layout(layout, block)
        before = entries_mask(blocks, mask)
        sizes = entries(blocks, x)
        chosen = part.masks(state, before, sizes, blocks, clients)
        # Clients with the same mask get the same object.
        of_weights = {}
        for own in chosen:
            if id(own) not in of_weights:
                of_weights[id(own)] = weights_mask(blocks, own)
        return [of_weights[id(own)] for own in chosen]

    def nominal(state, mask, layout):
        blocks = block_layout(layout, block)
        cut = part.nominal(state, entries_mask(blocks, mask), blocks)
        return weights_mask(blocks, cut)

    def refuses(facts):
        yield from part.refuses(facts)
        if not any(_divides(slot.shape, block) for slot in facts.layout.weights):
            yield (f"no layer of this model is made of whole blocks of {_words(block)}: take a "
                   "smaller block")

    def notes(facts):
        blocks = block_layout(facts.layout, block)
        yield from part.notes(facts._replace(layout=blocks))
        left = _undivided(facts.layout, block)
        if left:
            yield f"pruned weight by weight, not in blocks of {_words(block)}: {left}"

    return part._replace(
        init=init,
        evolve=evolve,
        probe=probe if part.probe else None,
        masks=masks if part.masks else None,
        nominal=nominal if part.nominal else None,
        refuses=refuses,
        notes=notes,
    )


def _updates(layout, updates):
    """The updates with B and support in blocks, where clients moved their masks."""
    if updates is None or updates.B is None:
        return updates
    # One weight stands for its block. -1: no such weight.
    block_of = torch.full((layout.whole.P,), -1)
    for slot, blocks in zip(layout.whole.weights, layout.weights):
        tiles = _tiles(slot.of(block_of), blocks.shape)
        places = torch.arange(blocks.offset, blocks.offset + blocks.size)
        grid = places.view(blocks.shape)
        tiles[:, :1, :, :1] = _tiles(grid, blocks.shape)
    of_support = block_of[updates.support.long()]
    columns = of_support >= 0
    support = of_support[columns]
    # The corners of blocks lie in another order than the blocks, in convolutions of several rows.
    order = support.argsort()
    B = updates.B[:, columns]
    return updates._replace(B=B[:, order], places=support[order].int())


def _undivided(layout, block):
    """``name (shape), ...`` of the layers that are not made of whole blocks."""
    left = [slot for slot in layout.weights if not _divides(slot.shape, block)]
    return ", ".join(f"{slot.name} {slot.shape}" for slot in left)


def _words(block):
    """``8x8``."""
    rows, columns = block
    return f"{rows}x{columns}"


# --- N of each M ---


def _in_groups(part, groups):
    """The Pruner ``part``, which knows of groups itself, with their notes."""
    kept, of = groups

    def refuses(facts):
        yield from part.refuses(facts)
        if not any(_divides(slot.shape, (1, of)) for slot in facts.layout.weights):
            yield (f"no layer of this model has inputs in groups of {of}: take a smaller group, "
                   "or block= for blocks")

    def notes(facts):
        yield from part.notes(facts)
        left = _undivided(facts.layout, (1, of))
        if left:
            yield f"dense, as their inputs do not divide by {of}: {left}"

    return part._replace(refuses=refuses, notes=notes)


def _grouped(values, slot, of):
    """A view (outputs, groups, of, kernel) of a layer in ``values (P,)`` or (Q,)."""
    tensor = slot.of(values)
    outputs, inputs = slot.shape[:2]
    return tensor.view(outputs, inputs // of, of, -1)


def top_in_groups(layout, scores, groups):
    """bool (Q,): of each group the N of largest ``scores (P,)``; of equal ones the first.

    Layers that do not divide are kept whole."""
    kept, of = groups
    mask = torch.zeros(layout.Q, dtype=torch.bool, device=scores.device)
    for slot in layout.weights:
        if not _divides(slot.shape, (1, of)):
            mask[slot.span] = True
            continue
        in_groups = _grouped(scores, slot, of)
        order = in_groups.argsort(dim=2, descending=True, stable=True)
        _grouped(mask, slot, of).scatter_(2, order[:, :, :kept], True)
    return mask


def swap_in_groups(layout, mask, counts, x, score, groups):
    """A new mask, in ``counts[l]`` groups a layer one weight dropped and one grown.

    ``score(slot) (size,)`` float32: the pruned weight of largest score grows. Groups without a
    score above 0 come last."""
    kept, of = groups
    new = mask.clone()
    for slot, count in zip(layout.weights, counts):
        if not _divides(slot.shape, (1, of)):
            continue
        is_kept = _grouped(mask, slot, of)
        sizes = _grouped(x, slot, of).abs()
        weakest, dropped = sizes.masked_fill(~is_kept, torch.inf).min(dim=2, keepdim=True)
        scores = score(slot).view(is_kept.shape)
        best, grown = scores.masked_fill(is_kept, -torch.inf).max(dim=2, keepdim=True)
        # Groups with nothing to grow come last.
        merit = torch.where(best > 0, -weakest, -torch.inf).flatten()
        k = min(count, len(merit))
        chosen = torch.zeros_like(merit, dtype=torch.bool)
        chosen[largest(merit, k)] = True
        moves = chosen.view(best.shape)
        moving = torch.zeros_like(is_kept)
        moving.scatter_(2, dropped, moves)
        moving.scatter_(2, grown, moves)
        # The dropped one was True, the grown one False.
        _grouped(new, slot, of).logical_xor_(moving)
    return new


def restored_in_groups(layout, x, returning, groups, gen):
    """bool (Q,): the N largest of each group; in some the last of them gives way to chance.

    A share ``returning`` of the kept weights does, the smallest ones, at most one a group."""
    kept, of = groups
    mask = top_in_groups(layout, x.abs(), groups)

    def score(slot):
        """(size,): at random."""
        return drawn_scores(slot.size, gen)

    counts = []
    for slot in layout.weights:
        num_kept = slot.size * kept // of
        counts.append(int(num_kept * returning))
    return swap_in_groups(layout, mask, counts, x, score, groups)
