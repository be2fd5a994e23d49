"""FedAvg: ``x <- x + sum_n w_n (x_n - x)``, w the clients' shares of the data (arXiv 1602.05629).

Clients start their optimiser anew each round. The local optimiser's defaults are those of the thesis's experiments,
shared by all strategies so that comparisons are fair; ``momentum=0,weight_decay=0`` is the paper's plain SGD.
Wire: the kept values, both ways.
"""

from fedmpi.local import sgd
from fedmpi.merge import average
from fedmpi.parts import Strategy


def fedavg(momentum: float = 0.9, weight_decay: float = 1e-3):
    """Local SGD, averaged by weight."""

    plain = {"momentum": momentum, "weight_decay": weight_decay}

    def local(task):
        return sgd(task, **plain)

    return Strategy(lambda layout: {}, local, average, linear=True, additive=True, sgd=plain)
