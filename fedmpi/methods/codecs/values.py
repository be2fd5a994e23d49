"""Values on the wire: exact, or fewer bits with a bound on the error.

Updates may be encoded with feedback of the error: what encoding loses is not lost but late (``fedmpi.wire.feedback``).
Entropy coding takes out what is redundant in the bytes, without loss.
"""

import numpy as np
import torch

from fedmpi.core.parts import Codec, Coding
from fedmpi.core.rng import Purpose, stream
from fedmpi.wire.squeeze import expand, squeeze

TINY = torch.finfo(torch.float32).tiny


def float32():
    """The values themselves; exact, 4 bytes each.

    Paper: none: IEEE 754 single precision.
    Up: 4 bytes a kept value.
    Down: 4 bytes a kept value; the measure of all others.
    """
    return Codec(lambda values: {"values": values.cpu().numpy()},
                 lambda arrays, K: torch.from_numpy(arrays["values"]),
                 lambda values: torch.zeros_like(values), exact=True)


def float16(entropy: bool = False, feedback: bool = False):
    """IEEE half precision, 2 bytes each; relative error 2^-11, magnitudes above 65504 become that.

    ``entropy``: fewer bytes, without loss; ``feedback``: updates with feedback of the error.

    Paper: Micikevicius et al. 2018, "Mixed Precision Training", arXiv 1710.03740, which introduces it to training.
    Up: 2 bytes a kept value, half of float32.
    Down: as many.
    """
    limit = torch.finfo(torch.float16)

    def encode(values):
        return {"values": values.clamp(limit.min, limit.max).half().cpu().numpy()}

    def bound(values):
        return (values - values.clamp(limit.min, limit.max)).abs() + values.abs() * 2 ** -11 + 2 ** -25

    codec = Codec(encode, lambda arrays, K: torch.from_numpy(arrays["values"]).float(), bound, feedback=feedback)
    return squeezed(codec, "values", np.float16) if entropy else codec


def bfloat16(entropy: bool = False, feedback: bool = False):
    """The upper half of float32, 2 bytes each; relative error 2^-8, the whole range of magnitudes.

    ``entropy``: fewer bytes, without loss; ``feedback``: updates with feedback of the error.

    Paper: Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training", arXiv 1905.12322.
    Up: 2 bytes a kept value, half of float32.
    Down: as many.
    """
    limit = torch.finfo(torch.bfloat16)

    def encode(values):
        return {"values": values.clamp(limit.min, limit.max).bfloat16().cpu().view(torch.int16).numpy()}

    def decode(arrays, K):
        return torch.from_numpy(arrays["values"]).view(torch.bfloat16).float()

    codec = Codec(encode, decode, lambda values: values.abs() * 2 ** -8 + 1e-38, feedback=feedback)
    return squeezed(codec, "values", np.int16) if entropy else codec


def int8(block: int = 256, entropy: bool = False, feedback: bool = False):
    """One byte each and a float32 scale a block of ``block`` values: error half of (largest in the block) / 127.

    ``entropy``: fewer bytes, without loss; ``feedback``: updates with feedback of the error.

    Paper: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", arXiv 2110.02861, there for optimiser
        states.
    Up: 1 byte a kept value and 4 a block, about a quarter of float32; less with entropy=true.
    Down: as many.
    """
    _check(block)

    def scales(values):
        padded = torch.nn.functional.pad(values.cpu(), (0, -len(values) % block)).view(-1, block)
        return padded, (padded.abs().amax(dim=1) / 127).clamp(min=TINY)

    def encode(values):
        padded, scale = scales(values)
        steps = (padded / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8)
        return {"steps": steps.view(-1)[: len(values)].numpy(), "scales": scale.numpy()}

    def decode(arrays, K):
        steps = torch.from_numpy(arrays["steps"]).float()
        limit = torch.finfo(torch.float32)
        return steps.mul_(torch.from_numpy(np.repeat(arrays["scales"], block)[:K])).clamp_(limit.min, limit.max)

    def bound(values):
        return scales(values)[1].repeat_interleave(block)[: len(values)] * 0.5001 + 1e-38

    codec = Codec(encode, decode, bound, feedback=feedback)
    return squeezed(codec, "steps", np.int8) if entropy else codec


def sign(block: int = 1024, feedback: bool = True):
    """Updates as signs, a bit each and a scale a block of ``block`` values, with feedback of the error.

    A scale is the mean magnitude of its block. Models come down as float32: none can be sent as signs. Biases, norms
    and running averages travel as float32 both ways: a running variance must not change its sign. Signs are as good as
    random: entropy coding would gain nothing.

    1-bit SGD (Seide et al. 2014) with the scale and the analysis of Karimireddy et al. 2019 (arXiv 1901.09847): without
    feedback it need not converge, with it it converges as SGD does. 1.03 bits a weight.

    Paper: Karimireddy et al. 2019, "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", arXiv
        1901.09847; Seide et al. 2014, "1-Bit Stochastic Gradient Descent".
    Up: 1 bit a kept weight and 4 bytes a block, about a thirtieth of float32.
    Down: models do not travel as signs: float32, as that codec.
    Example: fedmpi train --strategy fedavg --pruner static --codec sign
    """
    _check(block)
    every = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    eights = 1 - 2 * every.astype(np.float32)              # (256, 8): the signs that a byte holds

    def scales(values):
        padded = torch.nn.functional.pad(values.cpu(), (0, -len(values) % block)).view(-1, block)
        counts = torch.full((len(padded),), block)
        counts[-1:] = len(values) - block * (len(padded) - 1)
        return (padded.abs().sum(dim=1, dtype=torch.float64) / counts).float()

    def encode(values):
        return {"signs": np.packbits(np.signbit(values.cpu().numpy())), "scales": scales(values).numpy()}

    def decode(arrays, K):
        values = eights.take(arrays["signs"], axis=0).reshape(-1)[:K]
        values *= np.repeat(arrays["scales"], block)[:K]
        return torch.from_numpy(values)

    def bound(values):
        return (values.abs() - scales(values).repeat_interleave(block)[: len(values)]).abs() * 1.000001 + 1e-38

    return Codec(encode, decode, bound, down=float32(), feedback=feedback, weights=True)


def _check(block):
    if block < 1:
        raise ValueError(f"block must be at least 1 value, got {block}")


def squeezed(codec, name, dtype):
    """The ``codec`` whose array ``name (K,)`` of ``dtype`` travels without its redundancy: all first bytes of the
    values, then all second ones, since what is redundant, the exponent, is in one of them."""
    width = np.dtype(dtype).itemsize

    def encode(values, *coding):
        arrays = codec.encode(values, *coding)
        return arrays | {name: squeeze(np.ascontiguousarray(arrays[name].view(np.uint8).reshape(-1, width).T))}

    def decode(arrays, K):
        planes = expand(arrays[name], K * width).reshape(width, K)
        return codec.decode(arrays | {name: np.array(planes.T, order="C").view(dtype).reshape(K)}, K)

    return codec._replace(encode=encode, decode=decode)


def fitted(codec, tail):
    """The ``codec`` for vectors whose last ``tail`` values are never pruned, its ``down`` filled in."""
    codec = codec._replace(down=codec.down or codec)
    if not codec.weights:
        return codec

    def encode(values, *coding):
        return codec.encode(values[: len(values) - tail], *coding) | {"tail": values[len(values) - tail:].cpu().numpy()}

    def decode(arrays, K):
        return torch.cat([codec.decode(arrays, K - tail), torch.from_numpy(arrays["tail"])])

    def bound(values):
        return torch.cat([codec.bound(values[: len(values) - tail]), torch.zeros(tail)])

    return codec._replace(encode=encode, decode=decode, bound=bound)


def drawing(codec, seed, t, client=-1):
    """The ``codec`` as it encodes the update of a client in round ``t``, or the model: what it draws by chance follows
    from the run's ``seed`` and these alone."""
    if not codec.draws:
        return codec

    def encode(values):
        return codec.encode(values, Coding(stream(seed, Purpose.ENCODE, t, client + 1), t, client))

    return codec._replace(encode=encode)
