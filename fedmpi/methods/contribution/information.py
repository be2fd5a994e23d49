"""Information gain: what a client's samples tell about the last layer's weights (Sim et al., ICML 2020).

    v(S) = 1/2 logdet(I + sum_{n in S} Phi_n^T Phi_n / noise),    phi_n = Shapley value of v

Phi_n (n_n, d) are the features of the client's inputs under the received model: what enters its last linear layer, as
the model declares them. Where there are more than ``dims``, so many Gaussian mixtures of them stand in, the same for
all clients, which keep their inner products in the mean. v is the information, in nats, that the samples' labels carry
about the weights of a Bayesian linear regression on those features, with prior N(0, I) and labels of variance
``noise``: a Laplace approximation of the last layer, its bias left out. v is submodular: a client earns what the others
do not know yet. The paper's rewards (a model noised to (phi / max phi)^rho of the information) are not played.

Cost: a client sends d x d floats; the server computes 2^C determinants of that size where ``C <= limit``, else
``permutations`` times C; no model is evaluated. Sampled scores carry their standard errors, and sum to v(all) all the
same. Sees: features of the clients' inputs (their second moments). Blind spots: no label is looked at, so wrong labels
cost nothing; noise in the inputs is information and pays; many samples pay, whatever they are.
"""

import math
from functools import partial

import numpy as np
import torch

from fedmpi.methods.contribution.focus import outputs
from fedmpi.methods.contribution.game import (check_limit, draw_orders, gains, mean_and_error,
                                              powerset, prefixes, shapley_value)
from fedmpi.methods.contribution.volume import gaussian
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Contribution, Scores


def information_gain(noise: float = 1.0, dims: int = 64, limit: int = 8, permutations: int = 50):
    """Shapley value of the information about a Bayesian last layer.

    Paper: Sim et al. 2020, "Collaborative Machine Learning with Incentive-Aware Model Rewards", ICML 2020.
    Up: d x d floats more than the update, the features' inner products, d at most dims.
    Down: nothing more.
    Example: fedmpi train --contribution information-gain:dims=16
    """
    if not (noise > 0 and math.isfinite(noise)):
        raise ValueError(f"noise must be > 0, got {noise}: the variance of a label given the features")
    if dims < 1:
        raise ValueError(f"dims must be >= 1, got {dims}: the most features that are told apart")
    check_limit(limit)
    if permutations < 4:
        raise ValueError(f"permutations must be >= 4, got {permutations}: they come in pairs, and errors need two")

    def refuses(facts):
        if not any(len(slot.shape) == 2 for slot in facts.layout.weights):
            yield ("it needs the features before the last linear layer, and this model has none; use "
                   "robust-volume, which takes the inputs")

    def report(task):
        features = penultimate(task).double()
        if features.shape[1] > dims:
            features = features @ gaussian(features.shape[1], dims).to(features.device) / dims ** 0.5
        return {"gram": (features.T @ features).float().cpu().numpy()}

    def score(state, cohort, utility, gen):
        rank = cohort.clients.argsort().argsort()
        grams = np.stack([cohort.reports[row]["gram"] for row in cohort.clients.argsort().tolist()])
        v, C = partial(information, torch.from_numpy(grams).double() / noise), len(rank)
        if C <= limit:
            return Scores(exact(v, C)[rank])
        phi, error = sampled(v, C, permutations, gen)
        return Scores(phi[rank], error=error[rank])

    def notes(facts):
        if "permutations" in facts.given and facts.cohort <= limit:
            yield (f"no effect of permutations: up to limit={limit} clients all coalitions are taken, and "
                   f"here are {facts.cohort}")

    return Contribution(score, report=report, refuses=refuses, updates=False,
                        sees="features of the clients' inputs", notes=notes)


def penultimate(task):
    """``(n, d)``: what enters the last linear layer of the task's model for its own inputs, in evaluation mode.

    The last layer is the one that a forward pass calls last.
    """
    linear = [module for module in task.model.modules() if isinstance(module, torch.nn.Linear)]
    called = _entering(linear, task._replace(inputs=task.inputs[:1], labels=task.labels[:1]))
    if not called:
        raise UserError("information-gain needs the features before the last linear layer, but no nn.Linear of this "
                        "model is called in a forward pass; use robust-volume, which takes the inputs")
    last = called[-1][0]
    return torch.cat([features for _, features in _entering([last], task)])


def _entering(modules, task):
    """``[(module, its input (..., d) as rows)]`` of each call of ``modules`` in forward passes of the task's inputs."""
    seen = []

    def watch(module, inputs, named):
        given = inputs[0] if inputs else named["input"]
        seen.append((module, given.flatten(0, -2)))

    hooks = [module.register_forward_pre_hook(watch, with_kwargs=True) for module in modules]
    try:
        outputs(task)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def information(grams, coalitions, block=1 << 22):
    """``v (M,) float64`` of ``coalitions (M, C) bool``, where client n adds ``grams[n] (d, d)`` to the precision."""
    C, d, _ = grams.shape
    eye, rows = torch.eye(d, dtype=torch.float64), max(1, block // d ** 2)
    return torch.cat([torch.linalg.slogdet(eye + (part.double() @ grams.view(C, -1)).view(-1, d, d)).logabsdet / 2
                      for part in coalitions.split(rows)])


def exact(v, C):
    """``(C,) float64``: the Shapley value of the game ``v(coalitions (M, C) bool) -> (M,)`` of all 2^C coalitions."""
    coalitions = powerset(C)
    return shapley_value(coalitions, v(coalitions))


def sampled(v, C, permutations, gen):
    """``(phi (C,), standard errors (C,))`` float64: mean gains over random orders of joining and their reverses."""
    orders = draw_orders(gen, permutations // 2, C)
    orders = torch.stack([orders, orders.flip(1)], dim=1)                        # (draws, 2, C)
    distinct, which = torch.unique(prefixes(orders).view(-1, C), dim=0, return_inverse=True)
    return mean_and_error(gains(orders, v(distinct)[which].view(-1, 2, C + 1)).mean(dim=1))
