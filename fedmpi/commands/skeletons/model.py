"""NAME: a network of one hidden layer."""

import math

from torch import nn


def NAME(shape, outputs, hidden: int = 32):
    """One layer of ``hidden`` units for inputs of any ``shape``.

    Paper: none: the textbook's.
    Example: fedmpi train --model NAME:NAME:hidden=64
    """
    if hidden < 1:
        raise ValueError(f"hidden must be >= 1, got {hidden}")
    # Inputs are (n, *shape), outputs (n, outputs) without a softmax. Weights are drawn by torch's
    # generator, which fedmpi has seeded.
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), hidden), nn.ReLU(),
        nn.Linear(hidden, outputs))
