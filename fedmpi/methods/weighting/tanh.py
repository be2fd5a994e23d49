"""Tanh gate: ``gain = tanh(beta phi / max|phi|)``, 0 where negative (CGSV's gate, NeurIPS 2021).

Beyond 1 / beta of the largest score, a better one earns little more. In the paper the gate
decides how much of the model a client receives, here its weight. Gains are averaged, floored
and multiplied with the data size by ``fedmpi.methods.weighting.earned``.
"""

from fedmpi.methods.weighting.earned import earned, positive

# Divides scores that are all 0 in place of their largest.
TINY = 1e-300


def tanh(beta: float = 1.0, memory: float = 0.9, size_power: float = 1.0, score_power: float = 1.0,
         floor: float = 1e-3):
    """Scores that saturate.

    Paper: Xu et al. 2021, "Gradient Driven Rewards to Guarantee Fairness in Collaborative
        Machine Learning", NeurIPS 2021.
    """
    if not beta > 0:
        raise ValueError(f"beta must be > 0, got {beta}")

    def gains(phi):
        largest = phi.abs().max().clamp(min=TINY)
        # In units of the largest, so that beta means the same for any estimator.
        gate = (beta * phi / largest).tanh()
        return positive(gate)

    return earned(gains, memory, size_power, score_power, floor)
