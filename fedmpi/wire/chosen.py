"""A codec for messages with a part of a vector's values: all others come out as 0.

Both ends know the chosen places, so that no positions travel.
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
    # Values without pruning are the last of a vector, and those without training the last of these.
    num_dense = _num_last(chosen, layout.num_dense)
    num_averages = _num_last(chosen, layout.num_averages)
    own_codec = refitted(codec, num_dense, num_averages)
    return of_chosen(own_codec, chosen)


def _num_last(chosen, n):
    """The number of chosen values among the last ``n``."""
    start = len(chosen) - n
    return int(chosen[start:].sum())


def for_model(codec, strategy, layout, t, support):
    """The ``codec`` of the model that goes out in round ``t``, for values on the ``support``."""
    if strategy.travels is None:
        return codec
    part = strategy.travels(layout, t)
    chosen = gathered(part.down, support)
    return of_chosen(codec, chosen)


def up(strategy, layout, t, support):
    """(K,) bool: the values of the ``support`` that clients send in round ``t``; None: all."""
    if strategy.travels is None:
        return None
    part = strategy.travels(layout, t)
    return gathered(part.up, support)


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
