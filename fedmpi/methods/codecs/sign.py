"""Signs alone, with a scale for each block of values."""

import numpy as np
import torch

from fedmpi.core.parts import Codec
from fedmpi.methods.codecs.blocks import SMALLEST, check_block, in_blocks
from fedmpi.methods.codecs.float32 import float32


def sign(block: int = 1024, feedback: bool = True):
    """Updates as signs, a bit each and a scale a block of ``block`` values, with error feedback.

    A scale is the mean magnitude of its block. Models come down as float32: none can be sent as
    signs. Biases, norms and running averages travel as float32 both ways: a running variance
    must not change its sign. Signs are as good as random: entropy coding would gain nothing.

    1-bit SGD (Seide et al. 2014) with the scale and the analysis of Karimireddy et al. 2019
    (arXiv 1901.09847): without feedback it need not converge, with it it converges as SGD does.
    1.03 bits a weight.

    Paper: Karimireddy et al. 2019, "Error Feedback Fixes SignSGD and other Gradient Compression
        Schemes", arXiv 1901.09847; Seide et al. 2014, "1-Bit Stochastic Gradient Descent".
    Up: 1 bit a kept weight and 4 bytes a block, about a thirtieth of float32.
    Down: models do not travel as signs: float32, as that codec.
    Example: fedmpi train --strategy fedavg --pruner static --codec sign
    """
    check_block(block)
    signs_of_byte = _signs_of_byte()

    def scales_of(values):
        blocks = in_blocks(values, block)
        num_full = len(blocks) - 1
        counts = torch.full((len(blocks),), block)
        # The zeros of the last block do not count; without values there is no block.
        counts[-1:] = len(values) - block * num_full
        sums = blocks.abs().sum(dim=1, dtype=torch.float64)
        means = sums / counts
        return means.float()

    def encode(values):
        negative = np.signbit(values.cpu().numpy())
        scales = scales_of(values)
        return {"signs": np.packbits(negative), "scales": scales.numpy()}

    def decode(arrays, K):
        signs = signs_of_byte.take(arrays["signs"], axis=0)
        scales = np.repeat(arrays["scales"], block)
        values = signs.reshape(-1)[:K]
        values *= scales[:K]
        return torch.from_numpy(values)

    def bound(values):
        magnitudes = scales_of(values).repeat_interleave(block)[: len(values)]
        error = (values.abs() - magnitudes).abs()
        # A millionth more, for the rounding of the scales to float32.
        return error * 1.000001 + SMALLEST

    return Codec(encode, decode, bound, down=float32(), feedback=feedback, weights=True)


def _signs_of_byte():
    """(256, 8) float32: the eight signs, 1 or -1, of every byte."""
    column = np.arange(256, dtype=np.uint8)[:, None]
    bits = np.unpackbits(column, axis=1).astype(np.float32)
    # A bit is set for a negative value.
    return 1 - 2 * bits
