"""Values on the wire: exact, or fewer bits with a bound on the error."""

import numpy as np
import torch

from fedmpi.parts import Codec

TINY = torch.finfo(torch.float32).tiny


def float32():
    """The values themselves; exact, 4 bytes each."""
    return Codec(lambda values: {"values": values.cpu().numpy()},
                 lambda arrays, K: torch.from_numpy(arrays["values"]),
                 lambda values: torch.zeros_like(values))


def float16():
    """IEEE half precision, 2 bytes each; relative error 2^-11, magnitudes above 65504 become that."""
    limit = torch.finfo(torch.float16)

    def encode(values):
        return {"values": values.clamp(limit.min, limit.max).half().cpu().numpy()}

    def bound(values):
        return (values - values.clamp(limit.min, limit.max)).abs() + values.abs() * 2 ** -11 + 2 ** -25

    return Codec(encode, lambda arrays, K: torch.from_numpy(arrays["values"]).float(), bound)


def bfloat16():
    """The upper half of float32, 2 bytes each; relative error 2^-8, the whole range of magnitudes."""

    limit = torch.finfo(torch.bfloat16)

    def encode(values):
        return {"values": values.clamp(limit.min, limit.max).bfloat16().cpu().view(torch.int16).numpy()}

    def decode(arrays, K):
        return torch.from_numpy(arrays["values"]).view(torch.bfloat16).float()

    return Codec(encode, decode, lambda values: values.abs() * 2 ** -8 + 1e-38)


def int8(block: int = 256):
    """One byte each and a float32 scale a block of ``block`` values: error half of (largest in the block) / 127."""
    if block < 1:
        raise ValueError(f"block must be at least 1 value, got {block}")

    def scales(values):
        padded = torch.nn.functional.pad(values.cpu(), (0, -len(values) % block)).view(-1, block)
        return padded, (padded.abs().amax(dim=1) / 127).clamp(min=TINY)

    def encode(values):
        padded, scale = scales(values)
        steps = (padded / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        return {"steps": steps.view(-1)[: len(values)].numpy(), "scales": scale.numpy()}

    def decode(arrays, K):
        steps = torch.from_numpy(arrays["steps"]).float()
        limit = torch.finfo(torch.float32)
        return (steps * torch.from_numpy(np.repeat(arrays["scales"], block)[:K])).clamp(limit.min, limit.max)

    def bound(values):
        return scales(values)[1].repeat_interleave(block)[: len(values)] * 0.5001 + 1e-38

    return Codec(encode, decode, bound)
