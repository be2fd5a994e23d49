"""Data size: weights by samples, whatever the scores (FedAvg, arXiv 1602.05629).

Scores are recorded and remembered, as relu does, and change no weight. So estimators can be
compared on the same training.
"""

from fedmpi.methods.weighting.earned import earned, positive


def size():
    """By number of samples.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    """
    return earned(positive, memory=0.9, size_power=1.0, score_power=0.0, floor=0.0)
