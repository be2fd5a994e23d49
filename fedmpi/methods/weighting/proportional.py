"""Proportional: ``gain = phi - min(phi, 0)``: scores as they are, shifted up where some are
negative.

Gains are averaged, floored and multiplied with the data size by
``fedmpi.methods.weighting.earned``.
"""

from fedmpi.methods.weighting.earned import earned


def proportional(memory: float = 0.9, size_power: float = 1.0, score_power: float = 1.0,
                 floor: float = 1e-3):
    """Scores, shifted where some are negative.

    Paper: none: scores taken as they are.
    """

    def gains(phi):
        # Scores without a negative one stay as they are.
        lowest = phi.min().clamp(max=0)
        return phi - lowest

    return earned(gains, memory, size_power, score_power, floor)
