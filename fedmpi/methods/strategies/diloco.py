"""DiLoCo: many local steps of one optimiser, then one step of another on their mean update.

A client takes H steps (``--local-steps``) of ``--optimiser`` from the received model; their mean
update d, its outer gradient, is stepped by the server (arXiv 2311.08105)::

    sgd        x <- x + server_lr d
    heavy      v <- momentum v + d             x <- x + server_lr v
    nesterov   v <- momentum v + d             x <- x + server_lr (d + momentum v)
    adam       m, v as FedAdam's               x <- x + server_lr m / (sqrt(v) + tau)

``inner=keep``: a client's optimiser goes on where its last round ended, moments and number of
steps, and only the weights are the received ones, as in the paper; ``reset`` begins it anew each
round. The paper's AdamW is ``--optimiser adamw:beta2=0.95,weight_decay=0.1``, and its learning rate
a cosine over all steps of the run, ``--schedule cosine:over=run``.

A kept state stays with its client and is not billed. Where a weight is pruned its moments are
forgotten: a weight that grows again starts from 0, while the number of steps goes on. Running
statistics are averaged without the outer step. The paper's mean is uniform.

Cost: a vector on the server, two with adam; a vector or two more kept by each client.
"""

from typing import Literal

import torch

from fedmpi.core.effect import needs
from fedmpi.core.parts import Descent, Strategy
from fedmpi.core.reduce import mean
from fedmpi.methods.strategies.server_memory import stepped

# {outer rule: names of its vectors on the server}.
MEMORIES = {"sgd": (), "heavy": ("velocity",), "nesterov": ("velocity",), "adam": ("m", "v")}


@needs(momentum="outer!=sgd", beta2="outer=adam", tau="outer=adam")
def diloco(outer: Literal["sgd", "heavy", "nesterov", "adam"] = "nesterov", server_lr: float = 0.7,
           momentum: float = 0.9, inner: Literal["keep", "reset"] = "keep", beta2: float = 0.99,
           tau: float = 1e-3):
    """Local steps of one optimiser, an outer step of another on their mean.

    ``momentum`` is adam's beta1, too. Adam's steps are of length ``server_lr`` whatever the
    update's: take about .01.

    Paper: Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language
        Models", arXiv 2311.08105.
    Up: the kept values of the update, as FedAvg, once in --local-steps steps.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy diloco --optimiser adamw:beta2=0.95 --lr 0.001 --local-steps 20
    """
    _check(server_lr, momentum, beta2, tau)
    rule = _rule(outer, server_lr, momentum, beta2, tau)

    def init(layout):
        """The server's state before round 1: vectors of 0, float32 (P,) each."""
        return {name: torch.zeros(layout.P) for name in MEMORIES[outer]}

    def merge(state, x, updates, weights):
        return stepped(rule, state, x, updates, mean(updates, weights))

    def notes(facts):
        keeps_nothing = inner == "keep" and not facts.optimiser_state
        if "inner" in facts.user_options and keeps_nothing:
            yield f"inner=keep has no effect: {facts.named['optimiser']} has no state to keep"

    return Strategy(
        init,
        merge,
        Descent(resumes=inner == "keep"),
        # The paper's mean.
        weighting="uniform",
        linear=True,
        additive=True,
        in_pieces=True,
        notes=notes,
    )


def _rule(outer, server_lr, momentum, beta2, tau):
    """``rule(d, **vectors) -> (step, vectors)`` of the server, see ``stepped``."""

    def sgd(d):
        return server_lr * d, {}

    def heavy(d, velocity):
        velocity = momentum * velocity + d
        return server_lr * velocity, {"velocity": velocity}

    def nesterov(d, velocity):
        velocity = momentum * velocity + d
        return server_lr * (d + momentum * velocity), {"velocity": velocity}

    def adam(d, m, v):
        m = momentum * m + (1 - momentum) * d
        v = beta2 * v + (1 - beta2) * d.square()
        return server_lr * m / (v.sqrt() + tau), {"m": m, "v": v}

    return {"sgd": sgd, "heavy": heavy, "nesterov": nesterov, "adam": adam}[outer]


def _check(server_lr, momentum, beta2, tau):
    if not server_lr > 0:
        raise ValueError(f"server_lr must be > 0, got {server_lr}")
    if not (0 <= momentum < 1 and 0 <= beta2 < 1):
        raise ValueError(f"momentum and beta2 must be in [0, 1), got {momentum} and {beta2}")
    if not tau > 0:
        raise ValueError(f"tau must be > 0, got {tau}")
