"""Label flipping: poisoners train on labels turned round.

    y -> C - 1 - y                                       (Fang 2020, arXiv 1911.11815)
    with ``source`` and ``target``: source -> target     (Tolpegin 2020, arXiv 2007.08432)

Unlike noise a flip is the same for all samples of a class and for all poisoners, so they pull
together. The recorded quality is 0, however many labels change. With an odd number of classes
the middle one stays.
"""

import numpy as np

from fedmpi.core.parts import Fault
from fedmpi.methods.fault.training import drawn


def label_flip(share: float = 0.2, source: int = -1, target: int = -1):
    """round(share * clients) random poisoners; ``source`` and ``target`` -1 for all classes.

    Paper: Fang et al. 2020, "Local Model Poisoning Attacks to Byzantine-Robust Federated
        Learning", arXiv 1911.11815; Tolpegin et al. 2020, "Data Poisoning Attacks Against
        Federated Learning Systems", arXiv 2007.08432.
    """
    flips_all = source == target == -1
    are_classes = min(source, target) >= 0
    flips_one = are_classes and source != target
    if not (flips_all or flips_one):
        raise ValueError("source and target must be two different classes, or both -1 for all of "
                         f"them, got source={source} and target={target}")

    def labels(labels, classes, gen):
        # The number of classes is known only now, with the data.
        if max(source, target) >= classes:
            raise ValueError(f"source and target must be classes below {classes}, "
                             f"got {source} and {target}")
        if flips_all:
            return classes - 1 - labels
        return np.where(labels == source, target, labels)

    return Fault(drawn(share), 0.0, labels=labels)
