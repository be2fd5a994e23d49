"""The "unbalanced noise" of the thesis: every p-th mini-batch of a client gets random labels.

    batch i of a fixed order is hit iff i mod p = 0;  its labels are uniform over all C classes
    p = PERIODS[n * 10 // N] of client n

The level of a client is its period p, not a rate: the wrong labels are about (C - 1) / C / p of
all, and batch 0 is always hit.
"""

import numpy as np

from fedmpi.core.parts import Noise

# In batches; 10000 is next to never, but batch 0 is hit.
PERIODS = (1, 1, 2, 2, 2, 5, 5, 5, 10000, 10000)


def thesis(batch_size: int = 32):
    """Noise whose level is the period of the hit mini-batches; the clients are not random.

    Paper: the thesis (2023) that this project implements, on training large models federatedly
        by pruning.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")

    def rates(clients, gen):
        tenth = np.arange(clients) * len(PERIODS) // clients
        return np.array(PERIODS, np.float64)[tenth]

    def corrupt(labels, level, classes, gen):
        period = int(level)
        batch = np.arange(len(labels)) // batch_size
        is_hit = batch % period == 0
        # The true class may come again.
        fresh = gen.integers(0, classes, len(labels))
        return np.where(is_hit, fresh, labels)

    return Noise(rates, corrupt)
