"""Values in one byte, with a scale for each block of values."""

import numpy as np
import torch

from fedmpi.core.parts import Codec
from fedmpi.methods.codecs.blocks import FLOAT32, SMALLEST, TINY, check_block, in_blocks
from fedmpi.methods.codecs.squeezed import squeezed


def int8(block: int = 256, entropy: bool = False, feedback: bool = False):
    """One byte each and a float32 scale a block: error half of (largest in the block) / 127.

    A block has ``block`` values. ``entropy``: fewer bytes, without loss; ``feedback``: updates
    with feedback of the error.

    Paper: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", arXiv
        2110.02861, there for optimiser states.
    Up: 1 byte a kept value and 4 a block, about a quarter of float32; less with entropy=true.
    Down: as many.
    """
    check_block(block)

    def scales_of(blocks):
        largest = blocks.abs().amax(dim=1)
        # Not 0, since values are divided by it.
        return (largest / 127).clamp(min=TINY)

    def encode(values):
        blocks = in_blocks(values, block)
        scales = scales_of(blocks)
        steps = (blocks / scales[:, None]).round_()
        # A quotient may exceed 127 by rounding.
        steps = steps.clamp_(-127, 127).to(torch.int8)
        steps = steps.view(-1)[: len(values)]
        return {"steps": steps.numpy(), "scales": scales.numpy()}

    def decode(arrays, K):
        steps = torch.from_numpy(arrays["steps"])
        scales = np.repeat(arrays["scales"], block)[:K]
        values = steps.float()
        values.mul_(torch.from_numpy(scales))
        # 127 scales may be a little more than the largest float.
        return values.clamp_(FLOAT32.min, FLOAT32.max)

    def bound(values):
        scales = scales_of(in_blocks(values, block))
        steps = scales.repeat_interleave(block)[: len(values)]
        # Half a step, and room for the rounding of the division.
        return steps * 0.5001 + SMALLEST

    codec = Codec(encode, decode, bound, feedback=feedback)
    if entropy:
        return squeezed(codec, "steps", np.int8)
    return codec
