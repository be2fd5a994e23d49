"""Data size: a client's score and weight are its number of samples (FedAvg, arXiv 1602.05629).

Sees: the number of samples. Blind to what the samples are worth.
"""

from fedmpi.parts import Contribution


def size():
    """Score and weight by number of samples."""

    def score(state, cohort, utility, gen):
        return cohort.updates.n.clone()

    def weigh(state, phi, cohort):
        return state, phi / phi.sum()

    return Contribution(lambda n: {}, score, weigh)
