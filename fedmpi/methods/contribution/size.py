"""Data size: a client's score is its number of samples (FedAvg, arXiv 1602.05629).

    phi_n = n_n

Sees: the number of samples. Blind to the worth of the samples.
"""

from fedmpi.core.parts import Contribution, Scores


def size():
    """Number of samples.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    Up: nothing: the server knows the number of samples.
    Down: nothing more.
    """
    return Contribution(
        score,
        # Their shares are FedAvg's weights.
        weighting="size",
        updates=False,
        sees="numbers of samples",
    )


def score(state, cohort, utility, gen):
    """The cohort's numbers of samples, float64 (C,)."""
    return Scores(cohort.updates.n.clone())
