"""NAME: every client's inputs are brighter than those of the one before.

    x + brightest n / (N - 1)        on client n = 0 .. N - 1
"""

import numpy as np

from fedmpi.core.parts import Features


def NAME(brightest: float = 0.5):
    """A constant on every value, from 0 to ``brightest`` over the clients.

    Paper: none: a first sketch.
    Example: fedmpi train --features NAME:NAME:brightest=1
    """
    if not brightest >= 0:
        raise ValueError(f"brightest must be >= 0, got {brightest}")

    def levels(clients, gen):
        # What is recorded as the truth about each client.
        return np.linspace(0, brightest, clients)

    def apply(inputs, labels, level, classes, gen):
        # A new tensor of the same shape, dtype and device. Level 0 changes no value.
        return inputs + level

    return Features(levels, apply)
