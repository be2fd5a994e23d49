"""Sorted positions in a model's vector, and the values there.

A support is a tensor of positions, int32 (K,), or a ``Support``, which holds whole stretches by
their ends. The functions of this module take both.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

# Weights of a mask that are searched at once: they stay in a core's cache.
PIECE = 1 << 17
# Positions of a stretch that exist at once while its digest is taken: 4 MiB.
WRITTEN_OUT = 1 << 20


class Stretch(NamedTuple):
    """The values ``first`` to ``last`` of a support, without the last, and their positions."""

    first: int
    last: int
    # int32, or a slice of neighbours.
    places: torch.Tensor | slice


@dataclass(frozen=True, eq=False)
class Support:
    """Sorted positions: single ones, ``body (k,) int32``, then whole stretches.

    Each of ``spans`` is ``(start, stop)``, and takes no memory by the position.
    """

    body: torch.Tensor
    spans: tuple

    def __len__(self):
        return self.stretches[-1].last

    @cached_property
    def stretches(self):
        """[Stretch], in the order of their positions: the body, which may be empty, and spans."""
        last = len(self.body)
        stretches = [Stretch(0, last, self.body)]
        for start, stop in self.spans:
            first, last = last, last + stop - start
            stretches.append(Stretch(first, last, slice(start, stop)))
        return stretches

    @cached_property
    def positions(self):
        """int32 (K,): the positions one by one. Read only; kept, at 4 bytes a position."""
        return self.between(0, len(self))

    def between(self, first, last):
        """int32: the positions of the values ``first`` to ``last``, without the last."""
        pieces = []
        for stretch in self.stretches:
            begin = max(first, stretch.first) - stretch.first
            end = min(last, stretch.last) - stretch.first
            if begin < end:
                pieces.append(_written_out(stretch.places, begin, end))
        if len(pieces) == 1:
            return pieces[0]
        return torch.cat(pieces or [self.body])

    @cached_property
    def digest(self):
        """The checksum of the positions, int32."""
        total = zlib.crc32(self.body.numpy())
        for first in range(len(self.body), len(self), WRITTEN_OUT):
            last = min(first + WRITTEN_OUT, len(self))
            positions = self.between(first, last)
            total = zlib.crc32(positions.numpy(), total)
        return total

    @cached_property
    def leading(self):
        """Whether these are the first positions of the vector, one after the other."""
        K = len(self)
        last = self.between(K - 1, K)
        return K == 0 or int(last) == K - 1

    def to(self, device):
        """The same positions on a device."""
        return Support(self.body.to(device), self.spans)


def _written_out(places, begin, end):
    """int32: the places number ``begin`` to ``end``, without that one."""
    if isinstance(places, slice):
        start = places.start
        return torch.arange(start + begin, start + end, dtype=torch.int32)
    return places[begin:end]


def positions_of(support):
    """int32 (K,): a ``support`` as a tensor."""
    if isinstance(support, Support):
        return support.positions
    return support


def same(one, other):
    """Whether two supports hold the same positions."""
    if one is other:
        return True
    if isinstance(one, Support) and isinstance(other, Support) and one.spans == other.spans:
        return torch.equal(one.body, other.body)
    return torch.equal(positions_of(one), positions_of(other))


def spans_of(slots):
    """The spans of a support that holds these ``slots`` whole; neighbours make one span."""
    spans = []
    for slot in slots:
        span = slot.span
        start, stop = span.start, span.stop
        if spans and spans[-1][1] == start:
            start, _ = spans.pop()
        if start < stop:
            spans.append((start, stop))
    return tuple(spans)


def index_of(mask):
    """int32 (k,), sorted: where ``mask (n,) bool``, numpy's, is True.

    Sparse pieces are padded with True, so that numpy takes its faster dense path: if at most a
    tenth is True it jumps from one to the next, 18 ns each; above that it counts along, 0.7 ns a
    weight.

    >>> index_of(np.array([False, True, False, True]))
    array([1, 3], dtype=int32)
    """
    positions = np.empty(np.count_nonzero(mask), np.int32)
    # The first n entries are overwritten by a piece, the others are its padding.
    padded = np.ones(2 * PIECE, bool)
    end = 0
    for start in range(0, len(mask), PIECE):
        part = mask[start: start + PIECE]
        n = len(part)
        k = int(np.count_nonzero(part))
        # Jumps are faster only in pieces that are nearly empty.
        if n // 40 < k <= n // 10:
            padded[:n] = part
            # More than a tenth of it is True.
            num_more = n // 9 - k + 1
            part = padded[: n + num_more]
        begin, end = end, end + k
        positions[begin:end] = np.flatnonzero(part)[:k]
        positions[begin:end] += np.int32(start)
    return positions


def mask_of(support, Q):
    """bool (Q,): the mask that keeps the sorted positions of ``support (K,)`` below Q."""
    mask = torch.zeros(Q, dtype=torch.bool)
    num_weights = below(support, Q)
    mask[support[:num_weights]] = True
    return mask


def all_of(value, n, device="cpu"):
    """(n,): a tensor whose entries are all ``value``, in the memory of one of them. Read only."""
    return torch.tensor([value], device=device).expand(n)


def is_one_entry(tensor):
    """Whether the entries of a tensor, at least one, lie in the memory of one, as ``all_of``'s."""
    return len(tensor) > 0 and tensor.stride() == (0,)


def count(mask):
    """How many entries of ``mask (n,) bool``, on any device, are True."""
    if is_one_entry(mask):
        return len(mask) * int(mask[0])
    if mask.device.type == "cpu":
        return int(np.count_nonzero(mask.numpy()))
    return int(torch.count_nonzero(mask))


def gathered(x, support):
    """(K,): the values of ``x (P,)`` at the sorted positions ``support (K,)``.

    It is a view if those are the first K, as in most models without pruned weights.
    """
    if leading(support):
        return x[: len(support)]
    if not isinstance(support, Support):
        return x.index_select(0, support)
    values = x.new_empty(len(support))
    for first, last, places in support.stretches:
        if isinstance(places, slice):
            values[first:last] = x[places]
        else:
            torch.index_select(x, 0, places, out=values[first:last])
    return values


def scattered(values, support, into):
    """``into (P,)``, with ``values (K,)`` written to the sorted positions ``support (K,)``.

    >>> scattered(torch.tensor([5.0, 7.0]), torch.tensor([1, 3]), torch.zeros(4))
    tensor([0., 5., 0., 7.])
    """
    if leading(support):
        into[: len(support)] = values
    elif not isinstance(support, Support):
        _write(values, support, into)
    else:
        for first, last, places in support.stretches:
            _write(values[first:last], places, into)
    return into


def copied(x, support, into):
    """``into (P,)``, with the values of ``x (P,)`` at the sorted positions ``support (K,)``."""
    if not isinstance(support, Support):
        return scattered(gathered(x, support), support, into)
    for _, _, places in support.stretches:
        _write(x[places], places, into)
    return into


def _write(values, places, into):
    """Write ``values (k,)`` to ``places`` of ``into (P,)``, a slice or a tensor."""
    if isinstance(places, torch.Tensor) and into.device.type == "cpu":
        # numpy takes a third of torch's time.
        into.numpy()[places.numpy()] = values.numpy()
    else:
        into[places] = values


def below(support, bound):
    """How many of the sorted positions ``support (K,)`` are smaller than ``bound``."""
    if not isinstance(support, Support):
        return int(torch.searchsorted(support, bound))
    num_below = below(support.body, bound)
    for start, stop in support.spans:
        num_below += max(0, min(stop, bound) - start)
    return num_below


def digest(support):
    """A checksum of the ``support (K,)``, for both ends to compare."""
    # No code writes to a support, so that its checksum may stay with it.
    if not hasattr(support, "digest"):
        support.digest = zlib.crc32(support.numpy())
    return support.digest


def leading(support):
    """Whether sorted positions are the first ones, as in a model without pruned weights."""
    # No code writes to a support, so that the answer may stay with it.
    if not hasattr(support, "leading"):
        support.leading = _is_leading(support)
    return support.leading


def _is_leading(support):
    if len(support) == 0:
        return True
    last = int(support[-1])
    return last == len(support) - 1
