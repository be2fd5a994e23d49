"""PruneFL's adaptive pruning: keep the weights that promise most decrease of the risk per second (arXiv 1909.12326).

Training the set M for a round is taken to lower the risk by ``sum_{j in M} g_j^2`` and to cost ``c + sum_{j in M}
t_j`` seconds. Every ``every`` rounds clients send the mean squared gradient of every prunable weight over the round's
local steps; a layer's ``decrease * 0.5^(t / half_life)`` smallest magnitudes become removable; candidates (removable
and pruned) are added by falling ``g_j^2 / t_j`` while that beats the ratio of what is already kept. Weights that
return start at 0. A weight of layer l costs ``t_j = comm_s + 3 compute_s uses_l samples``: its way over the network,
and its multiplications forward and backward in a round (the paper measures both on a device; here they are options).
The density is an outcome; ``sparsity`` caps it from the first mask on. ``fixed`` fills exactly up to the cap, for
comparisons at equal sparsity.

The paper's first stage (pruning at one chosen client before federation) is not played: the first mask takes the
magnitudes within the budget, and the first reconfiguration comes at round ``every``. Gradients are gathered in the
reconfiguration round itself, since clients keep nothing between rounds. The paper reconfigures every 50th of its
10,001 rounds.
"""

import numpy as np
import torch

from fedmpi.mask import MIN_KEPT, budgets, check, first_mask, largest, positions
from fedmpi.parts import Probe, Pruner


def prunefl(sparsity: float = 0.8, distribution: str = "erk", init: str = "magnitude", every: int = 10,
            decrease: float = 0.3, half_life: float = 10000.0, constant_s: float = 1.0, comm_s: float = 5.56e-6,
            compute_s: float = 1e-9, fixed: bool = False):
    """Greedy choice by squared gradient per second, capped at ``1 - sparsity`` of the weights.

    Paper: Jiang et al. 2023, "Model Pruning Enables Efficient Federated Learning on Edge Devices", arXiv 1909.12326.
    Up: the kept values; in reconfiguring rounds also one float for every prunable weight, as much as a dense update.
    Down: the kept values, and the mask's changes after it moved; how many are kept is an outcome.
    Example: fedmpi train --strategy prunefl --pruner prunefl:every=5
    """
    check(sparsity, distribution, init, every, decrease)
    if min(constant_s, comm_s, compute_s) < 0 or comm_s + compute_s == 0:
        raise ValueError("constant_s, comm_s and compute_s are seconds >= 0, and a weight must cost something")

    def start(layout, x, schedule, gen):
        return {}, first_mask(layout, x, budgets(layout, sparsity, distribution), init, gen)

    def due(schedule):
        return schedule.t % every == 0 and schedule.t < schedule.rounds

    def probe(task):
        if not due(task.schedule):
            return Probe()
        total, steps = torch.zeros_like(task.g), [0]

        def step(g):
            total.addcmul_(g, g)
            steps[0] += 1

        def report():
            squares = (total / max(steps[0], 1)).cpu()
            others = float(squares[task.layout.Q:].double().sum())
            return {"squares": squares[: task.layout.Q][task.layout.full_mask()].numpy(),
                    "others": np.array([others, len(task.labels) * task.epochs])}

        return Probe(step=step, report=report, dense=len(task.labels) * task.epochs)

    def evolve(state, mask, x, replies, schedule, gen):
        if not due(schedule):
            return state, mask
        layout = replies.layout
        real = layout.full_mask()
        summed, others, samples = torch.zeros(layout.num_weights, dtype=torch.float64), 0.0, 0.0
        for weight, report in zip(replies.weights, replies.reports):
            summed += weight * torch.from_numpy(report["squares"]).double()
            others += float(weight) * float(report["others"][0])
            samples += float(weight) * float(report["others"][1])
        squares, costs = torch.zeros(layout.Q, dtype=torch.float64), torch.full((layout.Q,), comm_s, dtype=torch.float64)
        of_layers = summed.split([slot.size for slot in layout.weights])
        for slot, uses, of_layer in zip(layout.weights, replies.uses, of_layers):
            squares[slot.span] = of_layer
            costs[slot.span] += 3 * compute_s * uses * samples
        sure = _sure(layout, mask, x, decrease * 0.5 ** (schedule.t / half_life))
        cap = sum(budgets(layout, sparsity, distribution))
        return state, choose(squares, costs, sure, real, others, constant_s, cap, fixed)

    return Pruner(start, evolve, probe, exact=fixed)


def _sure(layout, mask, x, decrease):
    """bool (Q,): the kept weights that are not removable, the largest magnitudes a layer."""
    sure = torch.zeros_like(mask)
    for slot in layout.weights:
        live = positions(mask[slot.span])
        k = max(len(live) - int(decrease * len(live)), min(MIN_KEPT, len(live)))
        sure[slot.offset + live[largest(x[slot.span][live].abs(), k)]] = True
    return sure


def choose(squares, costs, sure, real, others, constant_s, cap, fixed):
    """The mask of the greedy rule, bool (Q,): the maximum of ``sum g^2 / sum t`` over supersets of ``sure``.

    ``squares``, ``costs`` (Q,) float64: squared gradients and seconds; ``sure``, ``real`` (Q,) bool: kept in any case,
    not padding; ``others``: the squared gradients of what is never pruned; ``cap``: the most weights kept.
    """
    num_sure = int(torch.count_nonzero(sure))
    room = min(max(cap - num_sure, 0), int(torch.count_nonzero(real)) - num_sure)
    ratio = torch.where(real & ~sure, squares / costs, -1.0)
    order = largest(ratio, room)                           # nothing beyond the cap needs to be sorted
    if not fixed:
        order = order[torch.from_numpy(np.argsort(-ratio[order].numpy(), kind="stable"))]
        gains, seconds = squares[order], costs[order]
        have = squares[sure].sum() + others + gains.cumsum(0) - gains            # before each candidate joins
        spent = costs[sure].sum() + constant_s + seconds.cumsum(0) - seconds
        better = gains * spent > have * seconds
        order = order if bool(better.all()) else order[: int(torch.argmin(better.int()))]
    mask = sure.clone()
    mask[order] = True
    return mask
