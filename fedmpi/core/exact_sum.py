"""Sums of updates that are the same bits in whatever order they are added up, on any device: whole numbers.

A value times its client's share is a double, rounded to a whole multiple of QUANTUM; int64 sums of those are exact.
"""

import numpy as np
import torch

LARGEST = 1e6    # an update with a larger value has diverged
BLOCK = 1 << 15  # values that are worked on at a time: they stay in a core's cache
QUANTUM = 2.0 ** -40    # 2^63 of them hold the largest mean
ROUNDER = 1.5 * 2.0 ** 52
ROUNDER_BITS = int(np.float64(ROUNDER).view(np.int64))


def sound(values):
    """Whether every value of an update is a number no larger than LARGEST."""
    return magnitude(values) <= LARGEST


def magnitude(values):
    """The largest magnitude among an update's values; NaN where one is no number."""
    if not len(values):
        return 0.0
    low, high = torch.stack(torch.aminmax(values)).tolist()     # a value that is no number makes both so
    return max(-low, high)


def add(sums, values, share, size):
    """Add an update ``values (K,) float32`` of magnitude ``size`` to ``sums (K,) int64``, by its ``share`` in the
    merge."""
    on_cpu = sums.device.type == "cpu"
    if on_cpu and size * share / QUANTUM < 2.0 ** 50:
        return add_small(sums.numpy(), values.numpy(), share / QUANTUM)
    block = BLOCK if on_cpu else BLOCK << 9                # 128 MiB: launches are what costs there
    for part, total in zip(values.split(block), sums.split(block)):
        total += part.double().mul_(share / QUANTUM).round_().long()


def add_small(sums, values, scale):
    """Add ``values (K,) float32`` times ``scale``, products below 2^51, to ``sums (K,) int64`` as whole numbers, both
    numpy's. A double to which 1.5 * 2^52 is added has been rounded to the nearest whole number, of two the even one,
    and holds it in its last bits: in half the time of rounding and converting."""
    product = np.empty(min(BLOCK, len(values)))
    for start in range(0, len(values), BLOCK):
        part, total = values[start: start + BLOCK], sums[start: start + BLOCK]
        block = product[: len(part)]
        np.multiply(part, scale, out=block, dtype=np.float64)
        block += ROUNDER
        total += block.view(np.int64)
        total -= ROUNDER_BITS


def mean(sums, whole):
    """float32 (K,): what ``sums (K,) int64`` stand for, divided by the ``whole`` of the shares."""
    found = torch.empty(len(sums))
    for part, out in zip(sums.split(BLOCK), found.split(BLOCK)):
        out.copy_(part.double().mul_(QUANTUM).div_(whole))
    return found
