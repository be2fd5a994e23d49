"""NAME: labels are drawn anew, more of them the higher a client's number is.

    rate_n = most n / (N - 1)
"""

import numpy as np

from fedmpi.core.parts import Noise


def NAME(most: float = 0.5):
    """Any class with a probability that grows from 0 to ``most`` over the clients.

    Paper: none: a first sketch.
    Example: fedmpi train --noise NAME:NAME:most=0.8
    """
    if not 0 <= most <= 1:
        raise ValueError(f"most must be in [0, 1], got {most}")

    def rates(clients, gen):
        return np.linspace(0, most, clients)

    def corrupt(labels, level, classes, gen):
        # A new array: the labels that are given stay as they are.
        n = len(labels)
        fresh = gen.integers(0, classes, n)
        is_wrong = gen.random(n) < level
        return np.where(is_wrong, fresh, labels)

    return Noise(rates, corrupt)
