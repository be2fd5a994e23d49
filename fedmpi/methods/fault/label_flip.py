"""Label flipping: poisoners who train on labels that they have turned round.

    y -> C - 1 - y   (Fang 2020, arXiv 1911.11815);   with ``source`` and ``target``: source -> target, the rest stays
                                                    (Tolpegin 2020, arXiv 2007.08432)

Unlike noise it is the same for all samples of a class and for all poisoners, so that they pull
together. The recorded quality is 0, however many labels that is. With an odd number of classes
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
    if min(source, target) < -1 or (source < 0) != (target < 0) or source == target >= 0:
        raise ValueError("source and target must be two different classes, or both -1 for all of them, "
                         f"got source={source} and target={target}")

    def labels(labels, classes, gen):
        if max(source, target) >= classes:
            raise ValueError(f"source and target must be classes below {classes}, got {source} and {target}")
        return classes - 1 - labels if source < 0 else np.where(labels == source, target, labels)

    return Fault(drawn(share), 0.0, labels=labels)
