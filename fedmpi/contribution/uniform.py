"""Uniform: every client of the cohort counts the same. Sees: nothing."""

import torch

from fedmpi.parts import Contribution


def uniform():
    """Equal scores, equal weights."""

    def score(state, cohort, utility, gen):
        return torch.ones(len(cohort.clients), dtype=torch.float64)

    def weigh(state, phi, cohort):
        return state, phi / phi.sum()

    return Contribution(lambda n: {}, score, weigh)
