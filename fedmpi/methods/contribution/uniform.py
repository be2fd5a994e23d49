"""Uniform: every client of the cohort counts the same, ``phi_n = 1``. Sees: nothing."""

import torch

from fedmpi.core.parts import Contribution, Scores


def uniform():
    """Equal scores.

    Paper: none: a control that tells nobody apart.
    Up: nothing.
    Down: nothing more.
    """

    def score(state, cohort, utility, gen):
        """Ones, float64 (C,)."""
        C = len(cohort.clients)
        return Scores(torch.ones(C, dtype=torch.float64))

    def notes(facts):
        if facts.scored:
            yield "all scores are equal: no weighting can tell clients apart by them"

    return Contribution(
        score,
        weighting="uniform",
        updates=False,
        sees="nothing",
        notes=notes,
    )
