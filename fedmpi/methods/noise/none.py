"""No label noise: every label stays as it is."""

import numpy as np

from fedmpi.core.parts import Noise


def none():
    """Noise of rate 0.

    Paper: none.
    """

    def rates(clients, gen):
        return np.zeros(clients)

    def corrupt(labels, level, classes, gen):
        return labels.copy()

    return Noise(rates, corrupt)
