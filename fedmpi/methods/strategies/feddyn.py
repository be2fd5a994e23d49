"""FedDyn: every client's loss gets a penalty that moves, such that the clients' optima agree with the federation's
(arXiv 2111.04263).

A client minimises ``f_n(y) + alpha <y, h_n - x> + alpha / 2 |y|^2`` up to a constant, hence in each step::

    gradient   grad f_n(y) + alpha (y - x + h_n)
    h_n   <- h_n + (y_n - x)
    x     <- mean over the cohort of y_n + mean over all N clients of h_n

h_n stays with the client, the server keeps the mean of all alone. Both are 0 where a weight has grown, and have no part
in running statistics. A client that is not asked keeps its h_n. The paper's mean is uniform (``--weighting uniform``,
usual here), and so is the one that the server keeps.
"""

import torch

from fedmpi.core.parts import Descent, Field, Strategy
from fedmpi.core.reduce import mean, moved, on_support


def feddyn(alpha: float = 0.01):
    """Dynamic regularisation of the clients' losses.

    Paper: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", arXiv 2111.04263.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy feddyn:alpha=0.01 --optimiser sgd
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}; FedAvg is --strategy fedavg")

    def init(layout):
        return {"drift": torch.zeros(layout.P)}

    def shift(task):
        own = task.kept.get("drift")
        return torch.zeros_like(task.g) if own is None else alpha * own[: task.layout.R]

    def reply(task, trained):
        R = task.layout.R
        moves = torch.zeros_like(task.base)
        moves[:R] = task.x[:R] - task.base[:R]
        return {}, {"drift": task.kept.get("drift", torch.zeros_like(task.base)) + moves}

    def merge(state, x, updates, weights):
        step = mean(updates, weights)
        trained, moving = step[..., : updates.trained], updates.support[: updates.trained]
        drift = state["drift"].index_select(0, moving) + trained * (members(updates, weights) / updates.N)
        step[..., : updates.trained] = trained + drift
        if weights.ndim == 1:
            state = {"drift": on_support(drift, moving, len(x))}
        return state, moved(x, updates.support, step)

    def members(updates, weights):
        if weights.ndim == 1:
            return len(updates.clients)
        # Of coalitions, those that are in each.
        return (weights > 0).sum(dim=1, keepdim=True)

    return Strategy(init, merge, Descent(mu=alpha, shift=shift), weighting="uniform", linear=True, additive=True,
                    keeps={"drift": Field()}, reply=reply)
