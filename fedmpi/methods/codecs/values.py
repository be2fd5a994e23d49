"""Codecs: the values on the wire, exact, or in fewer bits with a bound on the error.

An update may be encoded with error feedback: a client adds the error of one round to its next
update (``fedmpi.wire.feedback``). Entropy coding shortens the bytes without loss.
"""

import numpy as np
import torch
from torch.nn import functional as F

from fedmpi.core.parts import Codec, Coding
from fedmpi.core.rng import Purpose, stream
from fedmpi.wire.squeeze import expand, squeeze

FLOAT32 = torch.finfo(torch.float32)
TINY = FLOAT32.tiny
# Added to a relative bound, since float32 rounds numbers near 0 absolutely.
SMALLEST = 1e-38


def float32():
    """The values themselves; exact, 4 bytes each.

    Paper: none: IEEE 754 single precision.
    Up: 4 bytes a kept value.
    Down: 4 bytes a kept value; the measure of all others.
    """

    def encode(values):
        return {"values": values.cpu().numpy()}

    def decode(arrays, K):
        return torch.from_numpy(arrays["values"])

    return Codec(encode, decode, torch.zeros_like, exact=True)


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


def int8(block: int = 256, entropy: bool = False, feedback: bool = False):
    """One byte each and a float32 scale a block: error half of (largest in the block) / 127.

    A block has ``block`` values. ``entropy``: fewer bytes, without loss; ``feedback``: updates
    with feedback of the error.

    Paper: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", arXiv
        2110.02861, there for optimiser states.
    Up: 1 byte a kept value and 4 a block, about a quarter of float32; less with entropy=true.
    Down: as many.
    """
    _check(block)

    def scales_of(blocks):
        largest = blocks.abs().amax(dim=1)
        # Not 0, since values are divided by it.
        return (largest / 127).clamp(min=TINY)

    def encode(values):
        blocks = _blocks(values, block)
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
        scales = scales_of(_blocks(values, block))
        steps = scales.repeat_interleave(block)[: len(values)]
        # Half a step, and room for the rounding of the division.
        return steps * 0.5001 + SMALLEST

    codec = Codec(encode, decode, bound, feedback=feedback)
    if entropy:
        return squeezed(codec, "steps", np.int8)
    return codec


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
    _check(block)
    signs_of_byte = _signs_of_byte()

    def scales_of(values):
        blocks = _blocks(values, block)
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


def _blocks(values, block):
    """(blocks, block) on the CPU: ``values (K,)``, and zeros in the rest of the last block."""
    missing = -len(values) % block
    padded = F.pad(values.cpu(), (0, missing))
    return padded.view(-1, block)


def _check(block):
    if block < 1:
        raise ValueError(f"block must be at least 1 value, got {block}")


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


def fitted(codec, num_dense):
    """The ``codec`` for vectors that end in ``num_dense`` values without pruning.

    Its ``down`` is filled in. A codec for weights alone sends the tail as float32.
    """
    codec = codec._replace(down=codec.down or codec)
    if not codec.weights:
        return codec

    def parted(values):
        num_weights = len(values) - num_dense
        return values[:num_weights], values[num_weights:]

    def encode(values, *coding):
        weights, rest = parted(values)
        arrays = codec.encode(weights, *coding)
        return arrays | {"tail": rest.cpu().numpy()}

    def decode(arrays, K):
        weights = codec.decode(arrays, K - num_dense)
        rest = torch.from_numpy(arrays["tail"])
        return torch.cat([weights, rest])

    def bound(values):
        weights, _ = parted(values)
        return torch.cat([codec.bound(weights), torch.zeros(num_dense)])

    return codec._replace(encode=encode, decode=decode, bound=bound)


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
