"""Feature skew by noise: every client another amount of Gaussian noise on its inputs.

    x + N(0, sigma n / N) on client n = 0 .. N - 1;   the recorded level is the variance

The rule is NIID-Bench's (arXiv 2102.02079). The paper counts its parties from 1; here client 0
is clean, as in its program, which takes sigma n / (N - 1) for the standard deviation, and for
CIFAR-10 adds it to pixels in [0, 1]. Here the inputs are normalised to variance 1.
"""

import math

import numpy as np

from fedmpi.core.parts import Features
from fedmpi.methods.features.images import changes_ids, noised


def gaussian(sigma: float = 0.1, shuffle: bool = False):
    """Noise whose variance goes from 0 to almost ``sigma`` over the clients, shuffled or in order.

    Paper: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study",
        arXiv 2102.02079.
    """
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma must be >= 0 and finite, got {sigma}")

    def levels(clients, gen):
        variances = sigma * np.arange(clients) / clients
        if shuffle:
            return gen.permutation(variances)
        return variances

    def apply(inputs, labels, level, classes, gen):
        if not level:
            return inputs.clone()
        # The level is a variance.
        std = math.sqrt(level)
        return noised(inputs, std, gen)

    return Features(levels, apply, refuses=changes_ids)
