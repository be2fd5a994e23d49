"""NAME: some clients have mixed up which label belongs to which sample."""

import numpy as np

from fedmpi.core.parts import Fault


def NAME(share: float = 0.2):
    """round(share * clients) random clients whose labels are shuffled among their samples.

    Paper: none: a first sketch.
    Example: fedmpi train --fault NAME:NAME:share=0.4
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")

    def who(clients, gen):
        num_faulty = round(share * clients)
        order = gen.permutation(clients)
        faulty = order[:num_faulty]
        return np.isin(np.arange(clients), faulty)

    def labels(labels, classes, gen):
        # A new array. Fault has also places for other inputs, other samples and other training.
        return gen.permutation(labels)

    # quality is the truth that estimators are judged by: 1 is an honest client's.
    return Fault(who, quality=0.0, labels=labels)
