"""FedAvg: clients train, the server takes the mean of their models (arXiv 1602.05629).

    x <- x + sum_n w_n (x_n - x)            w_n: client n's share of the cohort's samples

Clients start their optimiser anew each round; with ``diloco:outer=sgd,server_lr=1`` it would go on.
The usual optimiser is the one of the thesis's
experiments. All strategies share it, so that comparisons are fair; ``--optimiser sgd`` is the
paper's plain SGD.
"""

from fedmpi.core.reduce import average
from fedmpi.core.parts import Strategy


def fedavg():
    """Local SGD, averaged by weight.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    Up: the kept values of the update; where nothing is pruned 4 bytes a weight.
    Down: the kept values of the model, as many; the measure of all others.
    Example: fedmpi train --strategy fedavg --pruner dense
    """
    return Strategy(
        stateless,
        average,
        # Coalitions merge in one product, and workers may add updates up.
        linear=True,
        additive=True,
        in_pieces=True,
        by_entry=True,
    )


def stateless(layout):
    """The state of a server that remembers nothing but the model."""
    return {}
