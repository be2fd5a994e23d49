"""A codec for messages that hold a part of a vector's values: the others come out as 0.

Both ends know the chosen values, so that no positions travel.
"""

import torch

from fedmpi.core.support import gathered
from fedmpi.wire.codecs import refitted


def for_update(codec, strategy, layout, t, support):
    """The ``codec`` of a client's update in round ``t``, for values (K,) on the ``support (K,)``.

    ``codec`` is fitted to the run's layout.
    """
    chosen = up(strategy, layout, t, support)
    if chosen is None:
        return codec
    # Of the chosen values, those without pruning, and those without training, are the last.
    num_dense = len(layout.dense_positions)
    dense = chosen[len(chosen) - num_dense:]
    averages = dense[num_dense - layout.num_averages:]
    own_codec = refitted(codec, int(dense.sum()), int(averages.sum()))
    return of_chosen(own_codec, chosen)


def for_model(codec, strategy, layout, t, support):
    """The ``codec`` of the model that goes out in round ``t``, for values on the ``support``."""
    if strategy.travels is None:
        return codec
    came = strategy.travels(layout, t).down
    return of_chosen(codec, gathered(came, support))


def up(strategy, layout, t, support):
    """(K,) bool: the values of the ``support`` that clients send in round ``t``; None: all."""
    if strategy.travels is None:
        return None
    return gathered(strategy.travels(layout, t).up, support)


def of_chosen(codec, chosen):
    """The ``codec`` for vectors (K,) of which the values ``chosen (K,) bool`` travel."""
    num_chosen = int(chosen.sum())

    def encode(values, *coding):
        return codec.encode(values[chosen], *coding)

    def decode(arrays, K):
        values = codec.decode(arrays, num_chosen)
        return _spread(values, chosen)

    def bound(values):
        return _spread(codec.bound(values[chosen]), chosen)

    def sent(arrays, K):
        return _spread(codec.sent(arrays, num_chosen), chosen)

    return codec._replace(
        encode=encode,
        decode=decode,
        bound=bound,
        # A value that is not chosen is another one after the round trip.
        exact=False,
        sent=None if codec.sent is None else sent)


def _spread(values, chosen):
    """(K,): ``values`` at the ``chosen (K,)`` places, 0 elsewhere."""
    whole = torch.zeros(len(chosen), dtype=values.dtype)
    whole[chosen] = values
    return whole
