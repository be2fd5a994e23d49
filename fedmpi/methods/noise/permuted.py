"""Permuted labels: the same features mean other classes on some clients (concept shift).

    y -> sigma_n(y)
    sigma_n: one random cycle over round(rate C) random classes, another on every such client

This is the test of clustered federated learning (Sattler 2020, arXiv 1910.01991). All labels of
a chosen class change, and none of another; at least two classes take part where ``rate`` > 0,
which is a swap. The recorded rate is the fraction of labels that changed.
"""

import numpy as np

from fedmpi.core.parts import Noise
from fedmpi.methods.noise.corrupt import shared_rates


def permuted(rate: float = 1.0, share: float = 0.5):
    """A random permutation of ``rate`` of the classes, another on each of a ``share`` of clients.

    round(share * clients) clients are drawn at random.

    Paper: Sattler, Müller and Samek 2021, "Clustered Federated Learning: Model-Agnostic
        Distributed Multi-Task Optimization under Privacy Constraints", arXiv 1910.01991.
    """
    return Noise(shared_rates(rate, share), _permute)


def _permute(labels, level, classes, gen):
    count = 0
    if level > 0:
        # A single class has no other meaning to take.
        count = max(2, round(level * classes))
    chosen = gen.permutation(classes)[:count]
    meaning = np.arange(classes)
    # Each chosen class takes the meaning of its neighbour: one cycle.
    meaning[chosen] = np.roll(chosen, 1)
    return meaning[labels]
