"""The thesis: dynamic sparse training, merged with weights that contributions earn.

    v <- beta v + sum_n w_n U_n / max(sum_n w_n B_n, rho)           x <- x + server_lr v

U_n is client n's clipped update, B_n is 1 on the entries that the client holds, else 0, and the
weights w are earned by contributions. Three profiles: ``thesis`` is the improved default,
``thesis_text`` the algorithm as printed (errata corrected), ``thesis_code`` as its author's
program runs it. Each is a strategy with its own usual pruner and contribution; naming another of
either is an ablation.

Corrected against the printed text, with the reason:

* the pruning line uses the rate alpha where alpha+ is meant: otherwise the restore step would
  leave the model denser than alpha (``fedmpi.methods.pruning.residual``);
* the initial weights are the data shares (the superscripts of r disagree): only then does gamma0
  = 1 give FedAvg;
* the update is not normalised before it moves the model: with unit updates the step is at most 1
  long whatever the learning rate and the epochs. Unit vectors serve the cosines only.
  ``normalise=true`` does it as printed.
"""

import torch
from torch.nn import functional as F

from fedmpi.core.reduce import average, mean, moved, on_support
from fedmpi.core.parts import Descent, Strategy, own_loss
from fedmpi.methods.strategies.fedavg import stateless


def thesis(clip: float = 3.0, rho: float = 0.1, server_momentum: float = 0.0,
           server_lr: float = 1.0):
    """Gradient growth by sparse uploads, weights by score and data share, clipped updates.

    ``clip`` limits an update's norm to so many times the cohort's median (0: never); ``rho`` is
    the least share of weight with which a coordinate's holders count; ``server_momentum`` is
    beta in ``v <- beta v + mean``.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by
        pruning.
    Up: the kept values of the update, (1 - sparsity) of FedAvg's dense one; every few rounds what
        rigl asks for.
    Down: the kept values of the model, and the changes of the mask.
    Example: fedmpi train --strategy thesis --contribution cosine
    """
    if not 0 <= server_momentum < 1:
        raise ValueError(f"server_momentum must be in [0, 1), got {server_momentum}")
    valid = clip >= 0 and 0 <= rho <= 1 and server_lr > 0
    if not valid:
        raise ValueError("clip must be >= 0, rho must be in [0, 1] and server_lr must be > 0, got "
                         f"{clip}, {rho} and {server_lr}")

    def init(layout):
        if server_momentum:
            return {"velocity": torch.zeros(layout.P)}
        return {}

    def merge(state, x, updates, weights):
        step = mean(updates, weights, rho, clip)
        trained = step[..., : updates.trained]
        if server_momentum:
            moving = updates.support[: updates.trained]
            velocity = state["velocity"][moving]
            trained += server_momentum * velocity
            # Coalitions (M, C) are hypothetical: only a real merge is remembered.
            if weights.ndim == 1:
                state = {"velocity": on_support(trained, moving, len(x))}
        trained *= server_lr
        return state, moved(x, updates.places, step)

    def notes(facts):
        if "rho" in facts.user_options and not facts.own_masks:
            yield ("no effect of rho: all clients train one common mask, so that all hold each "
                   "weight")
        # The median norm is the norm of the one update.
        if clip >= 1 and facts.cohort == 1:
            yield f"no effect of clip={clip:g}: a single answer a merge is as long as the median"

    return Strategy(
        init,
        merge,
        pruner="rigl",
        contribution="cosine",
        linear=True,
        # The lengths of single updates decide what is clipped.
        additive=not clip,
        in_pieces=not clip,
        notes=notes,
    )


def thesis_text(normalise: bool = False):
    """As printed: residuals kept on the server, masks moved each round, weights by raw cosines.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by
        pruning.
    Up: the kept values of the update, (1 - sparsity) of FedAvg's dense one; scores come from
        updates already sent.
    Down: the kept values of the model, and the changes of the mask every round.
    Example: fedmpi train --strategy thesis-text
    """

    def merge(state, x, updates, weights):
        if normalise:
            updates = unit(updates)
        return average(state, x, updates, weights)

    def notes(facts):
        if facts.fixed_masks and not (facts.scored or normalise):
            yield (f"with {facts.named['pruner']} and {facts.named['weighting']} nothing of it is "
                   "left: this is FedAvg")

    return Strategy(
        stateless,
        merge,
        pruner="residual:distribution=thesis",
        contribution="cosine",
        weighting="thesis:schedule=thesis",
        linear=True,
        additive=not normalise,
        in_pieces=not normalise,
        notes=notes,
    )


def thesis_code(double_softmax: bool = True, shuffle: bool = False):
    """As programmed: random growth from zero, a softmax too many before the loss, fixed batches.

    ``double_softmax`` takes a softmax of the outputs before cross-entropy takes its own.

    Growth comes every ten rounds, residuals are lost, scores start at zero. One difference: there
    a weight just dropped may be drawn again in the same update, at 0; here it may not. The program
    reports the accuracy before pruning and growing, column ``accuracy_before``.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by
        pruning, by its program.
    Up: the kept values of the update, (1 - sparsity) of FedAvg's dense one.
    Down: the kept values of the model, and the changes of the mask where it moves.
    Example: fedmpi train --strategy thesis-code
    """

    def loss(logits, labels, reduction="mean"):
        if double_softmax:
            logits = logits.softmax(dim=1)
        return F.cross_entropy(logits, labels, reduction=reduction)

    return Strategy(
        stateless,
        average,
        Descent(loss=loss, shuffle=shuffle),
        pruner="set:distribution=thesis,init=magnitude,every=10,fraction=0.1,decay=cosine,"
               "signed=false",
        contribution="cosine",
        weighting="thesis:schedule=thesis,start=zero",
        linear=True,
        additive=True,
        in_pieces=True,
        classes=True,
        notes=own_loss,
    )


def unit(updates):
    """The updates with trained parts of length 1; one of length 0 stays."""
    U = updates.U.clone()
    trained = U[:, : updates.trained]
    lengths = trained.norm(dim=1, keepdim=True)
    trained /= lengths.clamp(min=1e-30)
    return updates._replace(U=U)
