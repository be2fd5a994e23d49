"""Information gain: how much a client's samples tell about the last layer's weights (ICML 2020).

    v(S) = 1/2 logdet(I + sum_{n in S} Phi_n^T Phi_n / noise),    phi_n = Shapley value of v

Phi_n (n_n, d) are the features of the client's inputs under the received model: the inputs of its
last linear layer, as the model declares them. Of more than ``dims`` features, ``dims`` Gaussian
mixtures stand in, the same for all clients; they keep inner products in the mean.

v is the information, in nats, that the samples' labels carry about the weights of a Bayesian
linear regression on those features, with prior N(0, I) and labels of variance ``noise``: a Laplace
approximation of the last layer, its bias left out (Sim et al.). v is submodular: a client earns
only news to the others. The paper's rewards (a model noised to (phi / max phi)^rho of the
information) are not played.

Cost: a client sends d x d floats; the server computes 2^C determinants of that size if ``C <=
limit``, else ``permutations`` times C; no model is evaluated. Sampled scores carry their standard
errors, and sum to v(all) all the same. Sees: features of the clients' inputs (their second
moments). Blind spots: no label is looked at, so wrong labels cost nothing; noise in the inputs is
information and pays; many samples pay, whatever they are.
"""

import math
from functools import partial

import numpy as np
import torch

from fedmpi.methods.contribution.classwise import linear_layers
from fedmpi.methods.contribution.focus import outputs
from fedmpi.methods.contribution.game import (check_limit, draw_orders, exact, gains,
                                              mean_and_error, prefixes, with_reverses)
from fedmpi.methods.contribution.volume import gaussian
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Contribution, Scores


def information_gain(noise: float = 1.0, dims: int = 64, limit: int = 8, permutations: int = 50):
    """Shapley value of the information about a Bayesian last layer.

    Paper: Sim et al. 2020, "Collaborative Machine Learning with Incentive-Aware Model Rewards",
        ICML 2020.
    Up: d x d floats more than the update, the features' inner products, d at most dims.
    Down: nothing more.
    Example: fedmpi train --contribution information-gain:dims=16
    """
    if not (noise > 0 and math.isfinite(noise)):
        raise ValueError(f"noise must be > 0, got {noise}: the variance of a label given the "
                         "features")
    if dims < 1:
        raise ValueError(f"dims must be >= 1, got {dims}: the most features that are told apart")
    check_limit(limit)
    if permutations < 4:
        raise ValueError(f"permutations must be >= 4, got {permutations}: they come in pairs, and "
                         "errors need two")

    def report(task):
        """The inner products of the features over the client's samples, float32 (d, d)."""
        features = mixed(penultimate(task).double(), dims)
        gram = features.T @ features
        return {"gram": gram.float().cpu().numpy()}

    def score(state, cohort, utility, gen):
        """The Shapley values of the information; no utility is asked for."""
        # Players by increasing id: draws do not depend on the order of rows.
        rows = cohort.clients.argsort()
        rank = rows.argsort()
        C = len(rows)
        reports = [cohort.reports[row] for row in rows.tolist()]
        grams = np.stack([answer["gram"] for answer in reports])
        precisions = torch.from_numpy(grams).double() / noise
        v = partial(information, precisions)
        if C <= limit:
            return Scores(exact(v, C)[rank])
        phi, error = sampled(v, C, permutations, gen)
        return Scores(phi[rank], error=error[rank])

    def notes(facts):
        if "permutations" in facts.user_options and facts.cohort <= limit:
            yield (f"no effect of permutations: up to limit={limit} clients all coalitions are "
                   f"taken, and here are {facts.cohort}")

    return Contribution(
        score,
        report=report,
        refuses=refuses,
        updates=False,
        sees="features of the clients' inputs",
        notes=notes,
    )


def refuses(facts):
    """A line where the model has no linear layer."""
    if not linear_layers(facts.layout):
        yield ("it needs the features before the last linear layer, and this model has none; use "
               "robust-volume, which takes the inputs")


# --- on clients ---

def mixed(features, dims):
    """``(n, <= dims) float64``: the features, or so many Gaussian mixtures of more."""
    d = features.shape[1]
    if d <= dims:
        return features
    mixtures = gaussian(d, dims).to(features.device)
    return features @ mixtures / dims ** 0.5


def penultimate(task):
    """``(n, d)``: the inputs of the model's last linear layer, in evaluation mode.

    For the task's own inputs. The last layer is the one that a forward pass calls last. UserError
    if it calls none.
    """
    modules = task.model.modules()
    linear = [module for module in modules if isinstance(module, torch.nn.Linear)]
    # One sample tells the order of calls.
    one_sample = task._replace(
        inputs=task.inputs[:1],
        labels=task.labels[:1],
    )
    calls = _entering(linear, one_sample)
    if not calls:
        raise UserError("information-gain needs the features before the last linear layer, but no "
                        "nn.Linear of this model is called in a forward pass; use robust-volume, "
                        "which takes the inputs")
    last, _ = calls[-1]
    calls = _entering([last], task)
    return torch.cat([features for _, features in calls])


def _entering(modules, task):
    """``[(module, its input (..., d) as rows)]`` of each call of ``modules`` in forward passes."""
    calls = []

    def watch(module, inputs, named):
        """A hook: notes the module's input, which may be given by name."""
        if inputs:
            entering = inputs[0]
        else:
            entering = named["input"]
        calls.append((module, entering.flatten(0, -2)))

    hooks = [module.register_forward_pre_hook(watch, with_kwargs=True) for module in modules]
    try:
        outputs(task)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


# --- on the server ---

def information(grams, coalitions, block=1 << 22):
    """``v (M,) float64`` of ``coalitions (M, C) bool``: client n adds ``grams[n] (d, d)``.

    ``block`` limits the floats of the matrices that are made at once."""
    C, d, _ = grams.shape
    eye = torch.eye(d, dtype=torch.float64)
    flat = grams.view(C, -1)
    rows = max(1, block // d ** 2)
    pieces = []
    for part in coalitions.split(rows):
        sums = part.double() @ flat
        precisions = eye + sums.view(-1, d, d)
        # Positive definite: the sign is 1.
        logdets = torch.linalg.slogdet(precisions).logabsdet
        pieces.append(logdets / 2)
    return torch.cat(pieces)


def sampled(v, C, permutations, gen):
    """``(phi (C,), standard errors (C,))`` float64: mean gains over random orders and reverses."""
    orders = with_reverses(draw_orders(gen, permutations // 2, C))
    coalitions = prefixes(orders).view(-1, C)
    # Orders share coalitions: each is evaluated once.
    distinct, row_of = torch.unique(coalitions, dim=0, return_inverse=True)
    utilities = v(distinct)
    levels = utilities[row_of].view(-1, 2, C + 1)
    draws = gains(orders, levels).mean(dim=1)
    return mean_and_error(draws)
