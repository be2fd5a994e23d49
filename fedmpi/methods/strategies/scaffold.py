"""SCAFFOLD: control variates take the drift of skewed clients out of their steps.

A client corrects every gradient by ``c - c_n``: c_n estimates its own gradient, and c the mean of
all clients' gradients (arXiv 1910.06378)::

    y   <- y - lr (grad f_n(y) - c_n + c)            in each of its steps
    c_n <- c_n - c + (x - y) / way_n                 option II; plain SGD: way_n = lr steps
    x   <- x + server_lr mean_n (y_n - x)            c <- c + (1 / N) sum_n (new c_n - old c_n)

The means are over the cohort, N counts all clients. A client answers with the change of its
control beside its update.

The optimiser must be linear in the gradients (SGD): another is refused before the start.
way_n is the way of a constant gradient of 1 in the client's steps: ``lr steps`` for plain SGD,
about ``lr steps / (1 - momentum)`` with momentum. Divided by the steps alone, controls come out
ten times too large with momentum .9, and training collapses. Corrections are added before the
momentum. Controls live on kept weights: those of grown weights start at 0. Running statistics
have none.

A client that is not asked keeps its control. The paper's mean is uniform: ``--weighting uniform``,
which is usual here. Cost: two vectors each way, one more kept by the server and by each client; a
step costs as much as FedProx's.
"""

import math

import torch

from fedmpi.core.errors import UserError
from fedmpi.core.parts import Descent, Field, Strategy, wants_linear_steps
from fedmpi.core.reduce import mean, moved, on_support


def scaffold(server_lr: float = 1.0):
    """Local SGD with control variates.

    Paper: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated
        Learning", arXiv 1910.06378.
    Up: the kept values of the update and as many of the control's change: twice FedAvg's.
    Down: the kept values of the model and of the server's control: twice FedAvg's.
    Example: fedmpi train --strategy scaffold --optimiser sgd
    """
    if not server_lr > 0:
        raise ValueError(f"server_lr must be > 0, got {server_lr}")

    def merge(state, x, updates, weights):
        step = mean(updates, weights)
        step[..., : updates.trained] *= server_lr
        # Coalitions (M, C) are hypothetical: only a real merge is remembered.
        if weights.ndim == 1:
            before = state["control"].index_select(0, updates.support)
            control = before + updates.totals["change"] / updates.N
            state = {"control": on_support(control, updates.support, len(x))}
        return state, moved(x, updates.support, step)

    length = ("control_norm", "1", "length of the server's control")
    return Strategy(
        init,
        merge,
        Descent(shift=shift),
        # The paper's mean.
        weighting="uniform",
        linear=True,
        additive=True,
        sends={"control": Field()},
        send=send,
        # Only the sum of changes matters: workers may add them up.
        answers={"change": Field(fold="sum")},
        keeps={"control": Field()},
        reply=reply,
        columns=(length,),
        record=record,
        refuses=wants_linear_steps,
        notes=notes,
    )


def notes(facts):
    """Lines for the user where controls are without effect, or not those of the paper."""
    if facts.steps == 1 and facts.everybody and facts.even:
        yield ("all clients take one step a round, in which their corrections cancel out: this is "
               "FedAvg")
    if facts.clipped:
        yield ("--clip-norm shortens corrected gradients: where it does, controls estimate the "
               "shortened ones, and the correction does not cancel out")


# --- on clients ---

def shift(task):
    """float32 (R,): ``c - c_n``, added to every gradient; 0 off the mask."""
    difference = task.message["control"]
    # Before its first round a client has no control of its own: c_n is 0.
    if "control" in task.kept:
        difference = difference - task.kept["control"]
    return difference[: task.layout.R] * task.trainable


def reply(task, trained):
    """``(answer, kept)``: the control's change, float32 (P,), and the client's new control."""
    control = task.message["control"]
    own = task.kept.get("control", torch.zeros_like(task.base))
    change = torch.zeros_like(control)
    # Without a length of the way no control would ever move: this would be FedAvg.
    if math.isnan(trained.travelled):
        raise UserError("--strategy scaffold divides by how far clients went, and this training "
                        "does not say; give Trained its travelled")
    # A client without a step keeps its control.
    if trained.travelled > 0:
        R = task.layout.R
        way_back = task.base[:R] - task.x[:R]
        # The mean gradient on the way.
        gradient = way_back / trained.travelled
        difference = gradient - control[:R]
        change[:R] = difference * task.trainable
    return {"change": change}, {"control": own + change}


# --- on the server ---

def init(layout):
    """The server's state before round 1: a control of 0, float32 (P,)."""
    return {"control": torch.zeros(layout.P)}


def send(state):
    """The control, beside the model."""
    return {"control": state["control"]}


def record(state, updates):
    """The round's own column of the run file."""
    return {"control_norm": float(state["control"].norm())}
