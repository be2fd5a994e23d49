"""ReLU: ``gain = max(phi, 0)``, so a score of 0 or less earns nothing.

This is FLTrust's rule (arXiv 2012.13995), and the improved rule of the thesis. Gains are
averaged, floored and multiplied with the data size by ``fedmpi.methods.weighting.earned``.
"""

from fedmpi.methods.weighting.earned import earned, positive


def relu(memory: float = 0.9, size_power: float = 1.0, score_power: float = 1.0,
         floor: float = 1e-3):
    """Positive scores, proportionally.

    Paper: Cao et al. 2021, "FLTrust: Byzantine-robust Federated Learning via Trust
        Bootstrapping", arXiv 2012.13995.
    """
    return earned(positive, memory, size_power, score_power, floor)
