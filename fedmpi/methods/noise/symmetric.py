"""Symmetric label noise on a share of the clients.

    with probability rate:  y -> one of the other C - 1 classes        (include_true=False)
                            y -> any class, wrong at rate (C - 1) / C   (include_true=True)
"""

import numpy as np

from fedmpi.core.parts import Noise
from fedmpi.methods.noise.corrupt import flip_to_others, hit, shared_rates


def symmetric(rate: float = 0.4, share: float = 1.0, include_true: bool = False):
    """Any other class with probability ``rate``, on round(share * clients) random clients.

    Paper: Han et al. 2018, "Co-teaching: Robust Training of Deep Neural Networks with Extremely
        Noisy Labels", arXiv 1804.06872.
    """
    corrupt = _redraw if include_true else flip_to_others
    return Noise(shared_rates(rate, share), corrupt)


def _redraw(labels, level, classes, gen):
    fresh = gen.integers(0, classes, len(labels))
    return np.where(hit(labels, level, gen), fresh, labels)
