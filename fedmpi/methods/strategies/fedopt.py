"""FedOpt: the mean update is the gradient of an adaptive optimiser on the server (arXiv 2003.00295).

With the mean update d, moments m and v::

    m <- beta1 m + (1 - beta1) d                   x <- x + server_lr m / (sqrt(v) + tau)
    FedAdam     v <- beta2 v + (1 - beta2) d^2
    FedYogi     v <- v - (1 - beta2) d^2 sign(v - d^2)
    FedAdagrad  v <- v + d^2

without bias correction; v starts at 0. ``tau`` bounds how much a rarely moved weight is favoured. The paper's mean is
uniform over the cohort; here it is by ``--weighting``. A weight that is pruned forgets both moments. Running statistics
are averaged: a running variance must not be stepped. Cost: two vectors on the server.
"""

import torch

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import mean, moved, on_support


def fedadam(server_lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3):
    """FedAvg with Adam on the server.

    Paper: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedadam:server_lr=0.01
    """
    return _fedopt(lambda v, square: beta2 * v + (1 - beta2) * square, server_lr, beta1, beta2, tau)


def fedyogi(server_lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3):
    """FedAvg with Yogi on the server, whose second moment moves by no more than the square of an update.

    Paper: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedyogi:server_lr=0.01
    """
    return _fedopt(lambda v, square: v - (1 - beta2) * square * torch.sign(v - square), server_lr, beta1, beta2, tau)


def fedadagrad(server_lr: float = 0.1, beta1: float = 0.0, tau: float = 1e-3):
    """FedAvg with Adagrad on the server.

    Paper: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedadagrad:server_lr=0.1
    """
    return _fedopt(lambda v, square: v + square, server_lr, beta1, 0.0, tau)


def _fedopt(second_moment, server_lr, beta1, beta2, tau):
    """The strategy whose ``second_moment(v, d^2) -> v`` is this one."""
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= beta < 1:
            raise ValueError(f"{name} must be in [0, 1), got {beta}")
    for name, value in (("server_lr", server_lr), ("tau", tau)):
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")

    def init(layout):
        return {"m": torch.zeros(layout.P), "v": torch.zeros(layout.P)}

    def merge(state, x, updates, weights):
        step = mean(updates, weights)
        trained, moving = step[..., : updates.trained], updates.support[: updates.trained]
        m = beta1 * state["m"].index_select(0, moving) + (1 - beta1) * trained
        v = second_moment(state["v"].index_select(0, moving), trained.square())
        step[..., : updates.trained] = server_lr * m / (v.sqrt() + tau)
        if weights.ndim == 1:
            state = {"m": on_support(m, moving, len(x)), "v": on_support(v, moving, len(x))}
        return state, moved(x, updates.support, step)

    return Strategy(init, merge, linear=True, additive=True)
