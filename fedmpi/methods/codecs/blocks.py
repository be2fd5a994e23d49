"""Values in blocks, for codecs with a scale for each block."""

import torch
from torch.nn import functional as F

FLOAT32 = torch.finfo(torch.float32)
TINY = FLOAT32.tiny
# Added to a relative bound, since float32 rounds numbers near 0 absolutely.
SMALLEST = 1e-38


def in_blocks(values, block):
    """(blocks, block) on the CPU: ``values (K,)``, and zeros in the rest of the last block."""
    missing = -len(values) % block
    padded = F.pad(values.cpu(), (0, missing))
    return padded.view(-1, block)


def check_block(block):
    """ValueError unless a block has a value."""
    if block < 1:
        raise ValueError(f"block must be at least 1 value, got {block}")
