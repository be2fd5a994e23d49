"""Uniform: every client of the cohort weighs the same, whatever the scores, which are
remembered as relu does."""

from fedmpi.methods.weighting.earned import earned


def uniform():
    """Equal weights.

    Paper: none: a control.
    """
    return earned(lambda phi: phi.clamp(min=0), memory=0.9, size_power=0.0, score_power=0.0, floor=0.0)
