"""FedMP's merge, R2SP: a client's smaller network counts as a whole one with the server's values.

    x <- x + sum_n w_n u_n          u_n: the update of client n's own network, 0 elsewhere

A weight that a client lacks is its vote for no change. FedAvg would take the mean over the clients
that hold the weight.
"""

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import mean, moved
from fedmpi.methods.strategies.fedavg import stateless


def fedmp():
    """FedAvg of networks of different sizes, each completed by the server's values.

    Paper: Jiang et al. 2022, "FedMP: Federated Learning through Adaptive Model Pruning in
        Heterogeneous Edge Computing", ICDE 2022, pp. 767-779.
    Up: the values of the client's own network.
    Down: as many.
    Example: fedmpi train --model small-cnn --strategy fedmp --pruner fedmp:by=speed --devices drawn
    """
    return Strategy(
        stateless,
        merge,
        pruner="fedmp",
        linear=True,
        additive=True,
        notes=notes,
    )


def notes(facts):
    """A line for the user where no weight is missing on any client."""
    if not facts.pruned_apart:
        yield (f"with {facts.named['pruner']} all clients train the same network: this is FedAvg; "
               "take --pruner fedmp")


def merge(state, x, updates, weights):
    """The state as it is, and ``x (P,)`` moved by R2SP's mean."""
    # rho = 1 divides by the whole weight of the cohort, not by that of an entry's holders.
    step = mean(updates, weights, rho=1.0)
    return state, moved(x, updates.support, step)
