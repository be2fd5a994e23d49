"""FedAvg: ``x <- x + sum_n w_n (x_n - x)``, w the clients' shares of the data (arXiv 1602.05629).

Clients start their optimiser anew each round. The usual one is that of the thesis's experiments, shared by all
strategies so that comparisons are fair; ``--optimiser sgd`` is the paper's plain SGD.
"""

from fedmpi.core.reduce import average
from fedmpi.core.parts import Strategy


def fedavg():
    """Local SGD, averaged by weight.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", arXiv
        1602.05629.
    Up: the kept values of the update; where nothing is pruned 4 bytes a weight.
    Down: the kept values of the model, as many; the measure of all others.
    Example: fedmpi train --strategy fedavg --pruner dense
    """
    return Strategy(lambda layout: {}, average, linear=True, additive=True, by_entry=True)
