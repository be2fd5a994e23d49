"""NAME: the server goes a part of the way to the clients' weighted mean.

    x <- x + server_lr sum_n w_n (x_n - x)
"""

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import mean, moved


def NAME(server_lr: float = 1.0):
    """FedAvg with a learning rate of the server's.

    Paper: none: a first sketch.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy NAME:NAME:server_lr=0.5
    """
    if not server_lr > 0:
        raise ValueError(f"server_lr must be > 0, got {server_lr}")

    def init(layout):
        # The server remembers nothing. What it remembers is tensors by name.
        return {}

    def merge(state, x, updates, weights):
        step = mean(updates, weights)
        # Behind the trained weights stand running statistics, which are averaged and no more.
        step[..., : updates.trained] *= server_lr
        return state, moved(x, updates.support, step)

    # linear: merge also takes weights (M, C), a coalition a row.
    # additive: workers may add up their clients' updates, since only the sum matters.
    return Strategy(init, merge, linear=True, additive=True)
