"""FedAvgM: the server moves with momentum along the mean update (arXiv 1909.06335); also called FedMo.

With the mean update d and the velocity v::

    heavy      v <- momentum v + d                     x <- x + server_lr v
    nesterov   v <- momentum v + d                     x <- x + server_lr (d + momentum v)
    ema        v <- momentum v + (1 - momentum) d      x <- x + server_lr v

``heavy`` with momentum .9 takes steps ten times as long as ``ema``: choose server_lr with it. Ozdayi et al. 2020
(arXiv 2010.15582), which the thesis cites for momentum on the server, add three more techniques of which neither code
nor text could be read: they are not here. A weight that is pruned loses its velocity, so that it does not revive.
Running statistics are averaged without momentum. Cost: one vector on the server.
"""

from typing import Literal

import torch

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import mean, moved, on_support


def fedavgm(momentum: float = 0.9, server_lr: float = 1.0, kind: Literal["heavy", "nesterov", "ema"] = "heavy"):
    """FedAvg with momentum on the server.

    Paper: Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification", arXiv 1909.06335.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedavgm:momentum=0.9
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if not server_lr > 0:
        raise ValueError(f"server_lr must be > 0, got {server_lr}")

    def init(layout):
        return {"velocity": torch.zeros(layout.P)}

    def merge(state, x, updates, weights):
        step = mean(updates, weights)
        trained, moving = step[..., : updates.trained], updates.support[: updates.trained]
        velocity = state["velocity"].index_select(0, moving)
        fresh = (1 - momentum) * trained if kind == "ema" else trained
        velocity = momentum * velocity + fresh
        trained_step = trained + momentum * velocity if kind == "nesterov" else velocity
        step[..., : updates.trained] = server_lr * trained_step
        if weights.ndim == 1:
            state = {"velocity": on_support(velocity, moving, len(x))}
        return state, moved(x, updates.support, step)

    return Strategy(init, merge, linear=True, additive=True)
