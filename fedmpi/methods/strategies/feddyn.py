"""FedDyn: a penalty that moves makes the clients' optima agree with the federation's.

A client minimises ``f_n(y) + alpha <y, h_n - x> + alpha / 2 |y|^2`` up to a constant, hence in
each step (arXiv 2111.04263)::

    gradient   grad f_n(y) + alpha (y - x + h_n)
    h_n   <- h_n + (y_n - x)
    x     <- mean over the cohort of y_n + mean over all N clients of h_n

h_n stays with the client, the server keeps the mean of all alone. Grown weights start with h = 0,
and running statistics have none. A client outside the cohort keeps its h_n. The
paper's mean is uniform (``--weighting uniform``, usual here), and so is the server's mean of h.
The server adds up its mean from the updates that it gets. Where they are weighted unevenly, coded
with a loss, or scaled as stale, it is not exactly the clients' mean; a line before the start tells.
"""

import torch

from fedmpi.core.parts import Descent, Field, Strategy
from fedmpi.core.reduce import mean
from fedmpi.methods.strategies.server_memory import stepped


def feddyn(alpha: float = 0.01):
    """Dynamic regularisation of the clients' losses.

    Paper: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", arXiv 2111.04263.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy feddyn:alpha=0.01 --optimiser sgd
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}; FedAvg is --strategy fedavg")

    def shift(task):
        """float32 (R,): ``alpha h_n``, added to every gradient."""
        # Before its first round a client has no h_n.
        if "drift" not in task.kept:
            return torch.zeros_like(task.g)
        drift = task.kept["drift"]
        return alpha * drift[: task.layout.R]

    return Strategy(
        init,
        merge,
        Descent(mu=alpha, shift=shift),
        # The paper's mean.
        weighting="uniform",
        linear=True,
        additive=True,
        in_pieces=True,
        keeps={"drift": Field()},
        reply=reply,
        notes=notes,
    )


def notes(facts):
    """Lines for the user where the server's mean of all h_n drifts away from the clients' own."""
    apart = "the server's mean of all h_n is not the mean of the clients' own"
    if not facts.even:
        yield (f"{apart}: it adds up updates by {facts.named['weighting']}; the paper's is "
               "--weighting uniform")
    if facts.coded:
        yield f"{apart}: it adds up updates as {facts.named['codec']} sends them"
    if facts.asynchronous:
        yield f"{apart}: {facts.named['timing']} scales updates down, and clients do not"


# --- on clients ---

def reply(task, trained):
    """``(no answer, kept)``: the client's h_n after its training, float32 (P,)."""
    R = task.layout.R
    moves = torch.zeros_like(task.base)
    after = task.x[:R]
    # Buffers, behind the trained R, have no h.
    moves[:R] = after - task.base[:R]
    drift = task.kept.get("drift", torch.zeros_like(task.base))
    return {}, {"drift": drift + moves}


# --- on the server ---

def init(layout):
    """The server's state before round 1: a mean of all h_n of 0, float32 (P,)."""
    return {"drift": torch.zeros(layout.P)}


def merge(state, x, updates, weights):
    """The new mean of all h_n, and ``x (P,)`` moved by the mean update and by that."""
    share = members(updates, weights) / updates.N

    def rule(d, drift):
        # The cohort's moves add up to its size times their mean; all others' h_n stay.
        drift = drift + d * share
        return d + drift, {"drift": drift}

    return stepped(rule, state, x, updates, mean(updates, weights))


def members(updates, weights):
    """How many clients are merged; (M, 1) for coalitions, a row each."""
    if weights.ndim == 1:
        return len(updates.clients)
    return (weights > 0).sum(dim=1, keepdim=True)
