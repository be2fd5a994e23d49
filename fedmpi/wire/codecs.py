"""A codec for the messages of one run: for its layout, and with the chance of one message."""

from functools import partial

import torch

from fedmpi.core.parts import Coding
from fedmpi.core.rng import Purpose, stream


def fitted(codec, num_dense, num_averages=0):
    """The ``codec`` for vectors that end in ``num_dense`` values without pruning.

    The last ``num_averages`` of these are not trained. The codec's ``down`` is filled in. A codec
    for weights alone sends the dense values as float32, one for trained values the averages.
    """
    codec = codec._replace(down=codec.down or codec)
    if not (codec.weights or codec.trained):
        return codec
    tail = num_dense if codec.weights else num_averages

    def parted(values):
        num_weights = len(values) - tail
        return values[:num_weights], values[num_weights:]

    def encode(values, *coding):
        weights, rest = parted(values)
        arrays = codec.encode(weights, *coding)
        return arrays | {"tail": rest.cpu().numpy()}

    def decode(arrays, K):
        weights = codec.decode(arrays, K - tail)
        rest = torch.from_numpy(arrays["tail"])
        return torch.cat([weights, rest])

    def bound(values):
        weights, _ = parted(values)
        return torch.cat([codec.bound(weights), torch.zeros(tail)])

    def sent(arrays, K):
        of_weights = codec.sent(arrays, K - tail)
        return torch.cat([of_weights, torch.ones(tail, dtype=torch.bool)])

    return codec._replace(
        encode=encode,
        decode=decode,
        bound=bound,
        sent=None if codec.sent is None else sent,
        refit=partial(fitted, codec))


def refitted(codec, num_dense, num_averages=0):
    """A fitted ``codec`` for other vectors, that end in ``num_dense`` values without pruning."""
    if codec.refit is None:
        return codec
    return codec.refit(num_dense, num_averages)


def drawing(codec, seed, t, client=-1, message=0):
    """The ``codec`` for one message of round ``t``: a client's update, or the model (client -1).

    Its chance follows from ``seed``, ``t``, ``client`` and ``message`` alone, the number of the
    message among those of this client and round. The arrays of the message share one generator:
    each gets draws of its own, as they are encoded in one order on any rank.
    """
    if not codec.draws:
        return codec
    gen = stream(seed, Purpose.ENCODE, t, client + 1, message)
    coding = Coding(gen, t, client)

    def encode(values):
        return codec.encode(values, coding)

    return codec._replace(encode=encode)
