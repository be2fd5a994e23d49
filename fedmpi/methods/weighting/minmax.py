"""Min-max: ``gain = (phi - min) / (max - min)`` (ShapleyFL, KDD 2023, there with memory 0.3).

The worst client of a cohort always earns 0, however good it is. Gains are averaged, floored and
multiplied with the data size by ``fedmpi.methods.weighting.earned``.
"""

import torch

from fedmpi.methods.weighting.earned import ROUNDING, earned


def minmax(memory: float = 0.9, size_power: float = 1.0, score_power: float = 1.0,
           floor: float = 1e-3):
    """Scores stretched to [0, 1].

    Paper: Sun et al. 2023, "ShapleyFL: Robust Federated Learning Based on Shapley Value", KDD
        2023.
    """
    return earned(gains, memory, size_power, score_power, floor)


def gains(phi):
    """``(C,)`` in [0, 1]; equal for all where scores differ by rounding only."""
    lowest = phi.min()
    span = phi.max() - lowest
    rounding = ROUNDING * phi.abs().max()
    if span > rounding:
        return (phi - lowest) / span
    return torch.ones_like(phi)
