"""Sorted positions in a model's vector, and the values there."""

import numpy as np
import torch

# Weights of a mask that are searched at once: they stay in a core's cache.
PIECE = 1 << 17


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
    """bool (Q,): the mask that keeps the sorted positions of ``support`` below Q."""
    mask = torch.zeros(Q, dtype=torch.bool)
    num_weights = below(support, Q)
    mask[support[:num_weights]] = True
    return mask


def count(mask):
    """How many entries of ``mask (n,) bool``, on any device, are True."""
    if mask.device.type == "cpu":
        return int(np.count_nonzero(mask.numpy()))
    return int(torch.count_nonzero(mask))


def gathered(x, support):
    """(K,): the values of ``x (P,)`` at the sorted positions ``support (K,)``.

    It is a view if those are the first K, as in most models without pruned weights.
    """
    if leading(support):
        return x[: len(support)]
    return x.index_select(0, support)


def scattered(values, support, into):
    """``into (P,)``, with ``values (K,)`` written to the sorted positions ``support (K,)``.

    >>> scattered(torch.tensor([5.0, 7.0]), torch.tensor([1, 3]), torch.zeros(4))
    tensor([0., 5., 0., 7.])
    """
    if leading(support):
        into[: len(support)] = values
    elif into.device.type == "cpu":
        # numpy takes a third of torch's time.
        into.numpy()[support.numpy()] = values.numpy()
    else:
        into[support] = values
    return into


def below(support, bound):
    """How many of the sorted positions ``support (K,)`` are smaller than ``bound``."""
    return int(torch.searchsorted(support, bound))


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
