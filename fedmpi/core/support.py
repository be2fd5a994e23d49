"""Sorted positions in a model's vector, and the values there."""

import numpy as np
import torch

PIECE = 1 << 17   # weights of a mask whose positions are sought at once: they stay in a core's cache


def index_of(mask):
    """int32 (k,), sorted: where ``mask (n,) bool``, numpy's, is True.

    Where at most a tenth is True numpy jumps from one to the next, which takes 18 ns each, and above that it counts
    along, 0.7 ns a weight: so a piece is sought with as many more that are True behind it, unless next to nothing
    is."""
    found, end = np.empty(np.count_nonzero(mask), np.int32), 0
    sought = np.ones(2 * PIECE, bool)
    for start in range(0, len(mask), PIECE):
        part = mask[start: start + PIECE]
        n, k = len(part), int(np.count_nonzero(part))
        if n // 40 < k <= n // 10:
            sought[:n] = part
            part = sought[: n + n // 9 - k + 1]
        begin, end = end, end + k
        found[begin:end] = np.flatnonzero(part)[:k]
        found[begin:end] += np.int32(start)
    return found


def mask_of(support, Q):
    """bool (Q,): the mask whose kept weights are those of the sorted positions ``support`` that are below Q."""
    mask = torch.zeros(Q, dtype=torch.bool)
    mask[support[: below(support, Q)]] = True
    return mask


def count(mask):
    """How many entries of ``mask (n,) bool``, on any device, are True."""
    return int(np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else torch.count_nonzero(mask))


def gathered(x, support):
    """(K,): the values of ``x (P,)`` at the sorted positions ``support (K,)``; a view where those are the first K, as
    in most models with no weight pruned."""
    return x[: len(support)] if leading(support) else x.index_select(0, support)


def scattered(values, support, into):
    """``into (P,)``, with ``values (K,)`` written to the sorted positions ``support (K,)``."""
    if leading(support):
        into[: len(support)] = values
    elif into.device.type == "cpu":
        into.numpy()[support.numpy()] = values.numpy()     # a third of the time of torch's
    else:
        into[support] = values
    return into


def below(support, bound):
    """How many of the sorted positions ``support (K,)`` are smaller than ``bound``."""
    return int(torch.searchsorted(support, bound))


def leading(support):
    """Whether sorted positions are the first ones, as where no weight is pruned."""
    return len(support) == 0 or int(support[-1]) == len(support) - 1
