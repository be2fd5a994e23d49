"""NAME: values travel as whole multiples of a step, one byte each.

    step = largest magnitude / levels,       v -> step round(v / step)
"""

import numpy as np
import torch

from fedmpi.core.parts import Codec

# The smallest step: float32 loses digits below it.
SMALLEST = np.finfo(np.float32).tiny


def NAME(levels: int = 127):
    """One byte a value, and one scale for all of them.

    Paper: none: a first sketch.
    Up: 1 byte a kept value and 4 for the scale, about a quarter of float32.
    Down: as many.
    Example: fedmpi train --codec NAME:NAME:levels=63
    """
    if not 1 <= levels <= 127:
        raise ValueError(f"levels must be in [1, 127], got {levels}")

    def step(values):
        largest = np.abs(values).max(initial=0)
        return np.float32(max(largest / levels, SMALLEST))

    def encode(values):
        # Arrays by name: their bytes are counted. The tensor ``values`` stays as it is.
        numbers = values.cpu().numpy()
        unit = step(numbers)
        whole = np.rint(numbers / unit)
        whole = whole.clip(-levels, levels)
        return {
            "whole": whole.astype(np.int8),
            "step": np.array([unit]),
        }

    def decode(arrays, K):
        unit = arrays["step"].astype(np.float64)
        numbers = arrays["whole"] * unit
        # Rounding may overstep the end of float32.
        limit = np.finfo(np.float32).max
        numbers = numbers.clip(-limit, limit)
        return torch.from_numpy(numbers.astype(np.float32))

    def bound(values):
        # The largest error of each value: half a step, and the rounding of float32.
        numbers = values.cpu().numpy()
        largest = 0.5001 * step(numbers)
        return torch.full_like(values, largest)

    return Codec(encode, decode, bound)
