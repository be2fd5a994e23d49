"""FedMP's merge, R2SP: a client's smaller network counts as a whole one with the server's values.

``x <- x + sum_n w_n u_n``, u_n the update of the client's own network, and 0 where it holds
nothing: what a client lacks is its vote for no change. FedAvg would take the mean over those that
hold an entry.
"""

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import mean, moved


def fedmp():
    """FedAvg of networks of different sizes, each completed by the server's values.

    Paper: Jiang et al. 2022, "FedMP: Federated Learning through Adaptive Model Pruning in
        Heterogeneous Edge Computing", ICDE 2022, pp. 767-779.
    Up: the values of the client's own network.
    Down: as many.
    Example: fedmpi train --model small-cnn --strategy fedmp --pruner fedmp:by=speed --devices drawn
    """

    def merge(state, x, updates, weights):
        return state, moved(x, updates.support, mean(updates, weights, rho=1.0))

    return Strategy(lambda layout: {}, merge, pruner="fedmp", linear=True, additive=True)
