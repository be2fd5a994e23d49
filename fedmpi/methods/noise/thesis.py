"""The "unbalanced noise" of the thesis: every p-th mini-batch of a client is relabelled at random.

    batch i of a fixed order is hit iff i mod p = 0;  its labels are uniform over all C classes
    p = PERIODS[n * 10 // N] of client n

The level of a client is its period p, not a rate: the wrong labels are about (C - 1) / C / p of
all, and batch 0 is always hit.
"""

import numpy as np

from fedmpi.core.parts import Noise

PERIODS = (1, 1, 2, 2, 2, 5, 5, 5, 10000, 10000)


def thesis(batch_size: int = 32):
    """Noise whose level is the period of the hit mini-batches; nothing about the clients is random.

    Paper: the thesis (2023) that this project implements, on training large models federatedly
        by pruning.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")

    def rates(clients, gen):
        return np.array(PERIODS, np.float64)[np.arange(clients) * len(PERIODS) // clients]

    def corrupt(labels, level, classes, gen):
        hit = np.arange(len(labels)) // batch_size % int(level) == 0
        return np.where(hit, gen.integers(0, classes, len(labels)), labels)

    return Noise(rates, corrupt)
