"""Sums of updates as whole numbers: the same bits in any order of addition, on any device.

A value times its client's share is a double, rounded to a whole multiple of QUANTUM; int64 sums of
these multiples are exact.
"""

import numpy as np
import torch

# An update with a larger value has diverged.
LARGEST = 1e6
# Values that are worked on at a time: they stay in a core's cache.
BLOCK = 1 << 15
# 2^63 of these hold the largest mean.
QUANTUM = 2.0 ** -40
# A double to which ROUNDER is added has been rounded to the nearest whole number, of two the even
# one, and holds it in its last bits: in half the time of rounding and converting.
ROUNDER = 1.5 * 2.0 ** 52
ROUNDER_BITS = int(np.float64(ROUNDER).view(np.int64))


def sound(values):
    """Whether every value of an update is a number no larger than LARGEST."""
    return magnitude(values) <= LARGEST


def magnitude(values):
    """The largest magnitude among an update's values; NaN if any value is NaN."""
    if not len(values):
        return 0.0
    # One NaN makes both NaN.
    extremes = torch.aminmax(values)
    # Together, as each way down from a GPU waits for it.
    low, high = torch.stack(extremes).tolist()
    return max(-low, high)


def add(sums, values, share, size):
    """Add an update ``values (K,) float32`` to ``sums (K,) int64``, by its ``share`` in the merge.

    ``size`` is the update's magnitude. The order of additions leaves no trace, as it would in
    float32:

    >>> sums = torch.zeros(1, dtype=torch.int64)
    >>> for value in (1e6, 1e-6, -1e6):
    ...     add(sums, torch.tensor([value]), share=1.0, size=abs(value))
    >>> mean(sums, whole=1.0)
    tensor([1.0000e-06])
    """
    on_cpu = sums.device.type == "cpu"
    scale = share / QUANTUM
    largest = size * share / QUANTUM
    if on_cpu and largest < 2.0 ** 50:
        add_small(sums.numpy(), values.numpy(), scale)
        return
    # On a GPU launches cost the time: 128 MiB at once.
    block = BLOCK if on_cpu else BLOCK << 9
    blocks = zip(values.split(block), sums.split(block))
    for part, total in blocks:
        products = part.double().mul_(scale)
        products.round_()
        total += products.long()


def add_small(sums, values, scale):
    """Add ``values (K,) float32`` times ``scale`` to ``sums (K,) int64`` as whole numbers.

    Both are numpy's, and the products are below 2^51.
    """
    K = len(values)
    product = np.empty(min(BLOCK, K))
    for start in range(0, len(values), BLOCK):
        end = start + BLOCK
        part = values[start:end]
        total = sums[start:end]
        block = product[: len(part)]
        np.multiply(part, scale, out=block, dtype=np.float64)
        block += ROUNDER
        total += block.view(np.int64)
        total -= ROUNDER_BITS


def mean(sums, whole):
    """float32 (K,): the values of ``sums (K,) int64``, divided by the ``whole`` of the shares."""
    means = torch.empty(len(sums))
    blocks = zip(sums.split(BLOCK), means.split(BLOCK))
    for part, out in blocks:
        values = part.double()
        values.mul_(QUANTUM).div_(whole)
        out.copy_(values)
    return means
