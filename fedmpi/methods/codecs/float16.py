"""Values in half precision."""

import numpy as np
import torch

from fedmpi.core.parts import Codec
from fedmpi.methods.codecs.squeezed import squeezed


def float16(entropy: bool = False, feedback: bool = False):
    """IEEE half precision, 2 bytes each; relative error 2^-11, magnitudes above 65504 become that.

    ``entropy``: fewer bytes, without loss; ``feedback``: updates with feedback of the error.

    Paper: Micikevicius et al. 2018, "Mixed Precision Training", arXiv 1710.03740, which
        introduces it to training.
    Up: 2 bytes a kept value, half of float32.
    Down: as many.
    """
    limit = torch.finfo(torch.float16)

    def clipped(values):
        return values.clamp(limit.min, limit.max)

    def encode(values):
        halves = clipped(values).half()
        return {"values": halves.cpu().numpy()}

    def decode(arrays, K):
        halves = torch.from_numpy(arrays["values"])
        return halves.float()

    def bound(values):
        cut = (values - clipped(values)).abs()
        rounding = values.abs() * 2 ** -11
        # 2^-25: half of the smallest step between halves near 0.
        return cut + rounding + 2 ** -25

    codec = Codec(encode, decode, bound, feedback=feedback)
    if entropy:
        return squeezed(codec, "values", np.float16)
    return codec
