"""Entropy coding of the array of another codec: fewer bytes, without loss."""

import numpy as np

from fedmpi.wire.squeeze import expand, squeeze


def squeezed(codec, name, dtype):
    """The ``codec`` with entropy coding of its array ``name (K,)`` of ``dtype``.

    The first bytes of all values are coded together, then the second bytes: the redundant part
    of a float, its exponent, is in one of them.
    """
    # Bytes a value.
    width = np.dtype(dtype).itemsize

    def encode(values, *coding):
        arrays = codec.encode(values, *coding)
        by_value = arrays[name].view(np.uint8).reshape(-1, width)
        by_place = np.ascontiguousarray(by_value.T)
        return arrays | {name: squeeze(by_place)}

    def decode(arrays, K):
        content = expand(arrays[name], K * width)
        by_place = content.reshape(width, K)
        by_value = np.array(by_place.T, order="C")
        array = by_value.view(dtype).reshape(K)
        return codec.decode(arrays | {name: array}, K)

    return codec._replace(encode=encode, decode=decode)
