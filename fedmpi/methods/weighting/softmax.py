"""Softmax: ``gain = exp(phi / temperature)``, normalised.

Scores of different estimators differ in scale by orders; with ``standard`` the temperature is in
units of the cohort's standard deviation of phi, otherwise in units of phi. Gains are averaged,
floored and multiplied with the data size by ``fedmpi.methods.weighting.earned``.
"""

import torch

from fedmpi.methods.weighting.earned import ROUNDING, earned


def softmax(temperature: float = 1.0, standard: bool = True, memory: float = 0.9,
            size_power: float = 1.0, score_power: float = 1.0, floor: float = 1e-3):
    """Exponential of the scores.

    Paper: none: the usual map from scores to shares.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")

    def gains(phi):
        unit = float(phi.std(correction=0)) if standard else 1.0
        largest = float(phi.abs().max())
        if unit <= ROUNDING * largest:
            return torch.ones_like(phi)
        scaled = phi / (temperature * unit)
        return scaled.softmax(dim=0)

    return earned(gains, memory, size_power, score_power, floor)
