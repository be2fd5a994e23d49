"""SCAFFOLD: control variates take the drift of skewed clients out of their steps (arXiv 1910.06378).

A client corrects every gradient by ``c - c_n``, where c_n estimates its own gradient and c everybody's, and answers
with the change of its control beside its update::

    y   <- y - lr (grad f_n(y) - c_n + c)            in each of its steps
    c_n <- c_n - c + (x - y) / (lr steps)            option II
    x   <- x + server_lr mean_n (y_n - x)            c <- c + (1 / N) sum_n (new c_n - old c_n)

over the cohort, N being all clients. What divides is the distance that a constant gradient of 1 would have travelled,
which is ``lr steps`` of plain SGD and about ``lr steps / (1 - momentum)`` with momentum: divided by the steps alone,
controls come out ten times too large, and training collapses. Corrections are added before the momentum. Controls live
on kept weights: they are 0 where a weight has grown, and have no part in running statistics.

A client that is not asked keeps its control. The paper's mean is uniform: ``--weighting uniform``, which is usual here.
Cost: two vectors each way, one more kept by the server and by each client; a step costs what FedProx's costs.
"""

import torch

from fedmpi.core.parts import Descent, Field, Strategy
from fedmpi.core.reduce import mean, moved, on_support


def scaffold(server_lr: float = 1.0):
    """Local SGD with control variates.

    Paper: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", arXiv
        1910.06378.
    Up: the kept values of the update and as many of the control's change: twice FedAvg's.
    Down: the kept values of the model and of the server's control: twice FedAvg's.
    Example: fedmpi train --strategy scaffold --optimiser sgd
    """
    if not server_lr > 0:
        raise ValueError(f"server_lr must be > 0, got {server_lr}")

    def init(layout):
        return {"control": torch.zeros(layout.P)}

    def shift(task):
        control = task.given["control"]
        own = task.kept.get("control")
        difference = control if own is None else control - own
        return difference[: task.layout.R] * task.live

    def reply(task, trained):
        R = task.layout.R
        control, own = task.given["control"], task.kept.get("control", torch.zeros_like(task.base))
        change = torch.zeros_like(control)
        if trained.travelled > 0:
            change[:R] = ((task.base[:R] - task.x[:R]) / trained.travelled - control[:R]) * task.live
        return {"change": change}, {"control": own + change}

    def merge(state, x, updates, weights):
        step = mean(updates, weights)
        step[..., : updates.trained] *= server_lr
        if weights.ndim == 1:
            control = state["control"].index_select(0, updates.support) + updates.totals["change"] / updates.N
            state = {"control": on_support(control, updates.support, len(x))}
        return state, moved(x, updates.support, step)

    def record(state, updates):
        return {"control_norm": float(state["control"].norm())}

    return Strategy(init, merge, Descent(shift=shift), weighting="uniform", linear=True, additive=True,
                    sends={"control": Field()}, send=lambda state: {"control": state["control"]},
                    answers={"change": Field(fold="sum")}, keeps={"control": Field()}, reply=reply,
                    columns=(("control_norm", "1", "length of the server's control"),), record=record)
