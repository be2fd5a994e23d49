"""Values in the upper half of a float32."""

import numpy as np
import torch

from fedmpi.core.parts import Codec
from fedmpi.methods.codecs.blocks import SMALLEST
from fedmpi.methods.codecs.squeezed import squeezed


def bfloat16(entropy: bool = False, feedback: bool = False):
    """The upper half of float32, 2 bytes each; relative error 2^-8, the whole range of magnitudes.

    ``entropy``: fewer bytes, without loss; ``feedback``: updates with feedback of the error.

    Paper: Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training", arXiv
        1905.12322.
    Up: 2 bytes a kept value, half of float32.
    Down: as many.
    """
    limit = torch.finfo(torch.bfloat16)

    def encode(values):
        clipped = values.clamp(limit.min, limit.max)
        halves = clipped.bfloat16().cpu()
        # numpy has no bfloat16: the bits travel as int16.
        bits = halves.view(torch.int16)
        return {"values": bits.numpy()}

    def decode(arrays, K):
        bits = torch.from_numpy(arrays["values"])
        return bits.view(torch.bfloat16).float()

    def bound(values):
        return values.abs() * 2 ** -8 + SMALLEST

    codec = Codec(encode, decode, bound, feedback=feedback)
    if entropy:
        return squeezed(codec, "values", np.int16)
    return codec
