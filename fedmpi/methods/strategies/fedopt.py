"""FedOpt: the mean update is the gradient of an adaptive optimiser on the server.

With the mean update d, moments m and v (arXiv 2003.00295)::

    m <- beta1 m + (1 - beta1) d                   x <- x + server_lr m / (sqrt(v) + tau)
    FedAdam     v <- beta2 v + (1 - beta2) d^2
    FedYogi     v <- v - (1 - beta2) d^2 sign(v - d^2)
    FedAdagrad  v <- v + d^2

without bias correction; v starts at 0. ``tau`` bounds how much a rarely moved weight is favoured.
The paper's mean is uniform over the cohort; here it is by ``--weighting``. A weight that is pruned
forgets both moments. Running statistics are averaged: a running variance must not be stepped.
Cost: two vectors on the server.
"""

import torch

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import mean
from fedmpi.methods.strategies.server_memory import stepped


def fedadam(server_lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3):
    """FedAvg with Adam on the server.

    Paper: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedadam:server_lr=0.01
    """

    def second_moment(v, square):
        return beta2 * v + (1 - beta2) * square

    return _fedopt(second_moment, server_lr, beta1, beta2, tau)


def fedyogi(server_lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3):
    """FedAvg with Yogi on the server.

    Its second moment moves by no more than the square of an update.

    Paper: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedyogi:server_lr=0.01
    """

    def second_moment(v, square):
        direction = torch.sign(v - square)
        return v - (1 - beta2) * square * direction

    return _fedopt(second_moment, server_lr, beta1, beta2, tau)


def fedadagrad(server_lr: float = 0.1, beta1: float = 0.0, tau: float = 1e-3):
    """FedAvg with Adagrad on the server.

    Paper: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedadagrad:server_lr=0.1
    """

    def second_moment(v, square):
        return v + square

    return _fedopt(second_moment, server_lr, beta1, 0.0, tau)


def _fedopt(second_moment, server_lr, beta1, beta2, tau):
    """The strategy with this rule ``second_moment(v, d^2) -> v``; ValueError for bad options."""
    _check_betas(beta1=beta1, beta2=beta2)
    _check_positive(server_lr=server_lr, tau=tau)

    def rule(d, m, v):
        m = beta1 * m + (1 - beta1) * d
        v = second_moment(v, d.square())
        # No bias correction, as in the paper.
        step = server_lr * m / (v.sqrt() + tau)
        return step, {"m": m, "v": v}

    def merge(state, x, updates, weights):
        return stepped(rule, state, x, updates, mean(updates, weights))

    return Strategy(
        init,
        merge,
        linear=True,
        additive=True,
        in_pieces=True,
    )


def init(layout):
    """The server's state before round 1: moments of 0, float32 (P,) each."""
    return {"m": torch.zeros(layout.P), "v": torch.zeros(layout.P)}


def _check_betas(**betas):
    for name, beta in betas.items():
        if not 0 <= beta < 1:
            raise ValueError(f"{name} must be in [0, 1), got {beta}")


def _check_positive(**values):
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")
