"""Pair-flip label noise on a share of the clients: each class is mistaken for the next.

    with probability rate:  y -> (y + 1) mod C

Above a rate of 1/2 the wrong class is the more frequent one.
"""

import numpy as np

from fedmpi.core.parts import Noise
from fedmpi.methods.noise.corrupt import hit, shared_rates


def pair(rate: float = 0.3, share: float = 1.0):
    """The next class with probability ``rate``, on round(share * clients) random clients.

    Paper: Han et al. 2018, "Co-teaching: Robust Training of Deep Neural Networks with Extremely
        Noisy Labels", arXiv 1804.06872.
    """

    def corrupt(labels, level, classes, gen):
        next_class = (labels + 1) % classes
        return np.where(hit(labels, level, gen), next_class, labels)

    return Noise(shared_rates(rate, share), corrupt)
