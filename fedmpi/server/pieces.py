"""A merge of workers' sums piece by piece: neither the sums nor their mean lie in memory at once.

A strategy that is ``in_pieces`` merges a piece of the mean into the same piece of the vector before
the next one comes. The server then holds the model and the strategy's vectors, 4 bytes a weight
each, and once more as long as somebody may need the state before.
"""

from collections import Counter

import torch

from fedmpi.core import exact_sum
from fedmpi.core.support import below

# Kept weights that are merged at once: 4 MiB of each vector.
MERGED = 1 << 20


def merges_in_pieces(run, support):
    """Whether the sums on ``support (K,)`` are merged piece by piece: if there are several."""
    return run.sums_on_workers and run.strategy.in_pieces and len(support) > MERGED


def merged_in_pieces(run, state, updates, whole):
    """``(strategy's state, x (P,))`` after the merge of the workers' sums by their ``whole``.

    The vectors of ``state`` are overwritten if the run may, and if no other part has them as well.
    """
    is_needed = run.needs_previous_model or not run.may_overwrite()
    overwrites = _are_alone(state) and not is_needed
    x, vectors = state["x"], _vectors(state)
    into, new_vectors = x, vectors
    if not overwrites:
        into = torch.empty_like(x)
        new_vectors = {name: torch.empty_like(vector) for name, vector in vectors.items()}
    strategy = state["strategy"] | new_vectors
    total = updates._replace(B=None, n=updates.n.sum()[None])
    merge_part = part_merger(
        run.strategy.merge, run.layout.R, state["strategy"], x, total, strategy, into)

    def take(start, piece):
        sums = torch.from_numpy(piece)
        for first in range(0, len(sums), MERGED):
            mean = exact_sum.mean(sums[first: first + MERGED], whole)
            merge_part(start + first, mean)

    run.transport.total_pieces(len(updates.places), take)
    return strategy, into


def part_merger(merge, R, state, x, total, new_state, into):
    """``merge_part(first, mean (k,))`` of a strategy's ``merge``, for the values from ``first`` on.

    ``total`` are ``Updates`` on a ``Support`` for one client, without values; the first R entries
    of ``x (P,)`` are trained. The results go to ``into (P,)``, and to the dict ``new_state``.
    """
    support = total.places
    K, P = len(support), len(x)
    T = below(support, R)
    one = torch.ones(1, dtype=torch.float64)

    def begin_of(number):
        """The first position of the piece that begins with the value ``number``."""
        if number == 0:
            return 0
        if number == K:
            return P
        return int(support.between(number, number + 1))

    def merge_part(first, mean):
        last = first + len(mean)
        begin, end = begin_of(first), begin_of(last)
        piece = slice(begin, end)
        part = total._replace(
            U=mean[None],
            places=support.between(first, last) - begin,
            trained=min(max(T - first, 0), last - first))
        after, values = merge(_sliced(state, piece, P), x[piece], part, one)
        into[piece] = values
        for name, tensor in after.items():
            if _is_vector(new_state[name], P):
                new_state[name][piece] = tensor
            else:
                new_state[name] = tensor

    return merge_part


def _is_vector(tensor, P):
    return tensor.shape == (P,)


def _vectors(state):
    """``{name: tensor (P,)}`` of the strategy's state."""
    P = len(state["x"])
    vectors = {}
    for name, tensor in state["strategy"].items():
        if _is_vector(tensor, P):
            vectors[name] = tensor
    return vectors


def _sliced(state, piece, P):
    """The strategy's ``state`` with its vectors cut to a ``piece``."""
    sliced = dict(state)
    for name, tensor in state.items():
        if _is_vector(tensor, P):
            sliced[name] = tensor[piece]
    return sliced


def _are_alone(state):
    """Whether no other tensor of the state shares memory with x or the strategy's vectors."""
    users = Counter(_memory(tensor) for tensor in _tensors(state))
    own = [state["x"], *_vectors(state).values()]
    return all(users[_memory(tensor)] == 1 for tensor in own)


def _memory(tensor):
    return tensor.untyped_storage().data_ptr()


def _tensors(tree):
    """All tensors of nested dicts."""
    for leaf in tree.values():
        if isinstance(leaf, dict):
            yield from _tensors(leaf)
        elif isinstance(leaf, torch.Tensor):
            yield leaf
