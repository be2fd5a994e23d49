"""Data size: a client's score is its number of samples (FedAvg, arXiv 1602.05629).

Sees: the number of samples. Blind to what the samples are worth.
"""

from fedmpi.core.parts import Contribution, Scores


def size():
    """Number of samples.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", arXiv
        1602.05629.
    Up: nothing: the server knows the number of samples.
    Down: nothing more.
    """
    return Contribution(lambda state, cohort, utility, gen: Scores(cohort.updates.n.clone()), weighting="size",
                        updates=False, sees="numbers of samples")
