"""NAME: clients that drift apart are held back by what they remember.

Client n keeps d_n, the way it went in its last round. The server keeps d, the mean over all N
clients, and sends it with the model. Each step of a client corrects its gradient::

    gradient   grad f_n(y) + strength (d_n - d)
    d_n  <- x_n - x                                 d  <- d + (1 / N) sum_n (change of d_n)

This is SCAFFOLD (arXiv 1910.06378) in its plainest form, with a strength to be chosen.
"""

import torch

from fedmpi.core.parts import Descent, Field, Strategy
from fedmpi.core.reduce import average, on_support


def NAME(strength: float = 0.1):
    """FedAvg whose clients remember how they drift.

    Paper: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated
        Learning", arXiv 1910.06378, there with the strength that its learning rate gives.
    Up: the kept values of the update and of the drift's change: twice FedAvg's.
    Down: the kept values of the model and of the mean drift: twice FedAvg's.
    Example: fedmpi train --strategy NAME:NAME:strength=0.2
    """
    if not strength >= 0:
        raise ValueError(f"strength must be >= 0, got {strength}")

    def init(layout):
        return {"drift": torch.zeros(layout.P)}

    def send(state):
        return {"drift": state["drift"]}

    def shift(task):
        # What is added to every gradient of this client: task.message came from the server, and
        # task.kept is what the client kept. It is empty before the client's first round.
        own = task.kept.get("drift", torch.zeros_like(task.base))
        apart = own - task.message["drift"]
        trained = apart[: task.layout.R]
        return strength * trained * task.trainable

    def reply(task, trained):
        # After training: the client's answer beside its update, and the state it keeps.
        R = task.layout.R
        way = task.x[:R] - task.base[:R]
        drift = torch.zeros_like(task.base)
        drift[:R] = way * task.trainable
        before = task.kept.get("drift", torch.zeros_like(drift))
        return {"change": drift - before}, {"drift": drift}

    def merge(state, x, updates, weights):
        _, merged = average({}, x, updates, weights)
        if weights.ndim == 2:
            # Coalitions are asked what the model would be. They leave no trace in the state.
            return state, merged
        support = updates.support
        before = state["drift"].index_select(0, support)
        # Clients outside the cohort have not changed.
        drift = before + updates.totals["change"] / updates.N
        return {"drift": on_support(drift, support, len(x))}, merged

    return Strategy(
        init,
        merge,
        Descent(shift=shift),
        linear=True,
        additive=True,
        sends={"drift": Field()},
        send=send,
        answers={"change": Field(fold="sum")},
        keeps={"drift": Field()},
        reply=reply)
