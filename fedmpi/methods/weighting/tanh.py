"""Tanh gate: ``gain = tanh(beta phi / max|phi|)``, 0 where that is negative (CGSV's gate,
NeurIPS 2021): beyond 1 / beta of the largest, a better score earns little more. There it
decides how much of the model a client receives, here its weight. Then averaged, floored and
multiplied with the data size, see ``fedmpi.methods.weighting.earned``."""

from fedmpi.methods.weighting.earned import earned


def tanh(beta: float = 1.0, memory: float = 0.9, size_power: float = 1.0, score_power: float = 1.0,
         floor: float = 1e-3):
    """Scores that saturate.

    Paper: Xu et al. 2021, "Gradient Driven Rewards to Guarantee Fairness in Collaborative
        Machine Learning", NeurIPS 2021.
    """
    if not beta > 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    return earned(lambda phi: (beta * phi / phi.abs().max().clamp(min=1e-300)).tanh().clamp(min=0), memory, size_power,
                  score_power, floor)
