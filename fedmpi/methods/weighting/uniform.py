"""Uniform: every client of the cohort weighs the same, whatever the scores.

Scores are recorded and remembered, as relu does.
"""

from fedmpi.methods.weighting.earned import earned, positive


def uniform():
    """Equal weights.

    Paper: none: a control.
    """
    return earned(positive, memory=0.9, size_power=0.0, score_power=0.0, floor=0.0)
