"""The thesis: dynamic sparse training, merged with weights that contributions earn; three profiles of it.

``thesis`` is the improved default, ``thesis_text`` the algorithm as printed (errata corrected), ``thesis_code`` as its
author's program runs it. Each is a strategy with its own usual pruner and contribution; naming another of either is
an ablation.

Corrected against the printed text, with the reason:

* the pruning line uses the rate alpha where alpha+ is meant: otherwise the restore step would leave the model denser
  than alpha (``fedmpi.methods.pruning.residual``);
* the initial weights are the data shares (the superscripts of r disagree): only then does gamma0 = 1 give FedAvg;
* the update is not normalised before it moves the model: with unit updates the step is at most 1 long whatever the
  learning rate and the epochs. Unit vectors serve the cosines only. ``normalise=true`` does it as printed.
"""

import torch
from torch.nn import functional as F

from fedmpi.core.reduce import average, mean, moved
from fedmpi.core.parts import Descent, Strategy


def thesis(clip: float = 3.0, rho: float = 0.1, server_momentum: float = 0.0, server_lr: float = 1.0):
    """Gradient growth by sparse uploads, clean mixing of score and data share, clipped updates, server momentum.

    ``clip`` limits an update's norm to that many times the cohort's median (0: never); ``rho`` is the least share of
    weight that a coordinate's holders are taken to have; ``server_momentum`` is beta in ``v <- beta v + mean``.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by pruning.
    Up: the kept values of the update, (1 - sparsity) of FedAvg's dense one; every few rounds what rigl asks for.
    Down: the kept values of the model, and the changes of the mask.
    Example: fedmpi train --strategy thesis --contribution cosine
    """
    if not 0 <= server_momentum < 1:
        raise ValueError(f"server_momentum must be in [0, 1), got {server_momentum}")
    if not (clip >= 0 and 0 <= rho <= 1 and server_lr > 0):
        raise ValueError(f"clip must be >= 0, rho must be in [0, 1] and server_lr must be > 0, got {clip}, {rho} and "
                         f"{server_lr}")

    def init(layout):
        return {"velocity": torch.zeros(layout.P)} if server_momentum else {}

    def merge(state, x, updates, weights):
        step = mean(updates, weights, rho, clip)
        trained = step[..., : updates.trained]
        if server_momentum:
            moving = updates.support[: updates.trained]
            trained += server_momentum * state["velocity"][moving]
            if trained.ndim == 1:                     # weights outside the support lose their velocity
                state = {"velocity": torch.zeros_like(state["velocity"]).index_copy(0, moving.long(), trained)}
        trained *= server_lr
        return state, moved(x, updates.support, step)

    def notes(facts):
        if "rho" in facts.given and not facts.own_masks:
            yield "no effect of rho: all clients train one common mask, so that all hold each weight"

    return Strategy(init, merge, pruner="rigl", contribution="cosine", linear=True, additive=not clip, notes=notes)


def thesis_text(normalise: bool = False):
    """As printed: residuals kept on the server, the mask adjusted each round, weights mixed with raw cosines.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by pruning.
    Up: the kept values of the update, (1 - sparsity) of FedAvg's dense one; scores come from updates already sent.
    Down: the kept values of the model, and the changes of the mask every round.
    Example: fedmpi train --strategy thesis-text
    """

    def merge(state, x, updates, weights):
        if normalise:
            U = updates.U.clone()
            U[:, : updates.trained] /= U[:, : updates.trained].norm(dim=1, keepdim=True).clamp(min=1e-30)
            updates = updates._replace(U=U)
        return average(state, x, updates, weights)

    return Strategy(lambda layout: {}, merge, pruner="residual:distribution=thesis",
                    contribution="cosine", weighting="thesis:schedule=thesis", linear=True, additive=not normalise)


def thesis_code(double_softmax: bool = True, shuffle: bool = False):
    """As programmed: random growth from zero, softmax before a cross-entropy that applies its own, fixed batches.

    Growth comes every ten rounds, residuals are lost, scores start at zero. One difference: there a weight just
    dropped may be drawn again in the same update, at 0; here it may not. The program reports the accuracy before
    pruning and growing, column ``accuracy_before``.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by pruning, by its
        program.
    Up: the kept values of the update, (1 - sparsity) of FedAvg's dense one.
    Down: the kept values of the model, and the changes of the mask where it moves.
    Example: fedmpi train --strategy thesis-code
    """

    def loss(logits, labels, reduction="mean"):
        return F.cross_entropy(logits.softmax(dim=1) if double_softmax else logits, labels, reduction=reduction)

    return Strategy(lambda layout: {}, average, Descent(loss=loss, shuffle=shuffle),
                    pruner="set:distribution=thesis,init=magnitude,every=10,fraction=0.1,decay=cosine,signed=false",
                    contribution="cosine", weighting="thesis:schedule=thesis,start=zero", linear=True, additive=True,
                    classes=True)
