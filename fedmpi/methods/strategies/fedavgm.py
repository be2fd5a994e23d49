"""FedAvgM: the server moves with momentum along the mean update (arXiv 1909.06335); also FedMo.

With the mean update d and the velocity v::

    heavy      v <- momentum v + d                     x <- x + server_lr v
    nesterov   v <- momentum v + d                     x <- x + server_lr (d + momentum v)
    ema        v <- momentum v + (1 - momentum) d      x <- x + server_lr v

``heavy`` with momentum .9 takes steps ten times as long as ``ema``: choose server_lr with it.
A pruned weight loses its velocity, so that it does not revive. Running statistics are averaged
without momentum. Cost: one vector on the server.

The thesis cites Ozdayi et al. 2020 (arXiv 2010.15582) for momentum on the server. That paper adds
three more techniques. Neither their code nor their text could be read: they are not here.
"""

from typing import Literal

import torch

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import mean
from fedmpi.methods.strategies.server_memory import stepped


def fedavgm(momentum: float = 0.9, server_lr: float = 1.0,
            kind: Literal["heavy", "nesterov", "ema"] = "heavy"):
    """FedAvg with momentum on the server.

    Paper: Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for
        Federated Visual Classification", arXiv 1909.06335.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedavgm:momentum=0.9
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if not server_lr > 0:
        raise ValueError(f"server_lr must be > 0, got {server_lr}")

    def rule(d, velocity):
        fresh = d
        if kind == "ema":
            fresh = (1 - momentum) * d
        velocity = momentum * velocity + fresh
        step = velocity
        if kind == "nesterov":
            step = d + momentum * velocity
        return server_lr * step, {"velocity": velocity}

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
    """The server's state before round 1: a velocity of 0, float32 (P,)."""
    return {"velocity": torch.zeros(layout.P)}
