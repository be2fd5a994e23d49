"""Asymmetric label noise of CIFAR-10: lookalikes are confused.

    with probability rate:  truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog

The confusions are of Patrini et al. 2017 (arXiv 1609.03683). The other five classes stay, so on
balanced data half of ``rate`` of the labels are wrong; the recorded rate is the fraction that
really changed. Any data set of 10 classes is taken; elsewhere than on CIFAR-10 the pairs mean
nothing.
"""

import numpy as np

from fedmpi.core.parts import Noise
from fedmpi.methods.noise.corrupt import hit, shared_rates

#           airplane automobile bird cat deer dog frog horse ship truck
MISTAKEN = (0,       1,         0,   5,  7,   3,  6,   7,    8,   1)


def asymmetric(rate: float = 0.4, share: float = 1.0):
    """A lookalike of CIFAR-10's classes with probability ``rate``, on a ``share`` of the clients.

    round(share * clients) clients are drawn at random.

    Paper: Patrini et al. 2017, "Making Deep Neural Networks Robust to Label Noise: a Loss
        Correction Approach", arXiv 1609.03683.
    """

    def corrupt(labels, level, classes, gen):
        if classes != len(MISTAKEN):
            raise ValueError("asymmetric noise confuses CIFAR-10's classes: "
                             f"got {classes} classes, expected 10")
        lookalikes = np.array(MISTAKEN)[labels]
        return np.where(hit(labels, level, gen), lookalikes, labels)

    return Noise(shared_rates(rate, share), corrupt)
