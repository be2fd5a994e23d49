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

from fedmpi.compute.sgd import length_of
from fedmpi.core.effect import needs
from fedmpi.core.mask import (Distribution, Init, MIN_KEPT, budgets, by_layer, check, first_mask,
                              largest, living, never_moves, positions, top_among)
from fedmpi.core.parts import Probe, Pruner, Round


@needs(constant_s="fixed=false")
def prunefl(sparsity: float = 0.8, distribution: Distribution = "erk", init: Init = "magnitude",
            every: int = 10, decrease: float = 0.3, half_life: float = 10000.0,
            constant_s: float = 1.0, comm_s: float = 5.56e-6, compute_s: float = 1e-9,
            fixed: bool = False):
    """Greedy choice by squared gradient per second, capped at ``1 - sparsity`` of the weights.

    Paper: Jiang et al. 2023, "Model Pruning Enables Efficient Federated Learning on Edge Devices", arXiv 1909.12326.
    Up: the kept values; in reconfiguring rounds also one float for every prunable weight, as much as a dense update.
    Down: the kept values, and the mask's changes after it moved; how many are kept is an outcome.
    Example: fedmpi train --strategy prunefl --pruner prunefl:every=5
    """
    check(sparsity, distribution, init, every, decrease)
    if min(constant_s, comm_s, compute_s) < 0 or comm_s + compute_s == 0:
        raise ValueError("constant_s, comm_s and compute_s are seconds >= 0, and a weight must cost something")

    if not half_life > 0:
        raise ValueError(f"half_life must be > 0 rounds, got {half_life}")

    def start(layout, x, schedule, gen):
        return {}, first_mask(layout, x, budgets(layout, sparsity, distribution), init, gen)

    def due(schedule):
        return schedule.t % every == 0 and schedule.t < schedule.rounds

    def probe(task):
        if not due(task.schedule):
            return Probe()
        total, steps = torch.zeros_like(task.g), [0]
        _, _, samples = length_of(task)

        def step(g):
            total.addcmul_(g, g)
            steps[0] += 1

        def report():
            squares = (total / max(steps[0], 1)).cpu()
            others = float(squares[task.layout.Q:].double().sum())
            return {"squares": squares[: task.layout.Q][task.layout.full_mask()].numpy(),
                    "others": np.array([others, samples])}

        return Probe(step=step, report=report, dense=samples)

    def evolve(state, mask, x, replies, schedule, gen):
        if not due(schedule):
            return state, mask
        layout = replies.layout
        others, samples = (sum(weight * float(report["others"][i]) for weight, report in
                               zip(replies.weights.tolist(), replies.reports)) for i in (0, 1))
        costs = [comm_s + 3 * compute_s * uses * samples for uses in replies.uses]
        ratio = ratios(layout, [report["squares"] for report in replies.reports], replies.weights.tolist(), costs)
        sure = _sure(layout, mask, x, decrease * 0.5 ** (schedule.t / half_life))

        def cost_of(places):
            counts = torch.tensor([len(each) for each in by_layer(layout, places)])
            return torch.tensor(costs, dtype=torch.float64).repeat_interleave(counts)

        kept, cap = positions(sure), sum(budgets(layout, sparsity, distribution))
        new = joining(ratio, cost_of, kept, max(cap - len(kept), 0), others, constant_s, fixed)
        return state, sure.index_fill_(0, new, True)

    def notes(facts):
        return never_moves(lambda t: decrease > 0 and due(Round(t, facts.rounds)), facts.rounds,
                           f"every={every} and decrease={decrease} leave it no round before the last one")

    return Pruner(start, evolve, probe, exact=fixed, notes=notes, planned=due)


def _sure(layout, mask, x, decrease):
    """bool (Q,): the kept weights that are not removable, the largest magnitudes a layer."""
    layers = living(layout, mask)
    kept = [max(len(live) - int(decrease * len(live)), min(MIN_KEPT, len(live))) for live in layers]
    return top_among(layout, layers, x, kept)


def ratios(layout, squares, weights, costs):
    """float32 (Q,): the mean squared gradients over the ``costs`` of each layer's weights, -1 on padding, from the
    clients' ``squares``, arrays (num_weights,)."""
    ratio, start = torch.full((layout.Q,), -1.0), 0
    for slot, cost in zip(layout.weights, costs):
        here, columns = ratio[slot.span].zero_(), slice(start, start + slot.size)
        for of_client, weight in zip(squares, weights):
            here.add_(torch.from_numpy(of_client[columns]), alpha=weight / cost)
        start += slot.size
    return ratio


def joining(ratio, cost_of, kept, room, others, constant_s, fixed):
    """int64, sorted: what joins ``kept``, sorted positions, by the greedy rule, which finds the maximum of
    ``sum g^2 / sum t`` over supersets.

    ``ratio (Q,)``: squared gradient per second, negative where there is no weight; it is overwritten at ``kept``.
    ``cost_of(places) -> (n,) float64`` seconds; ``others``: the squared gradients of what is never pruned; ``room``:
    how many may join, no more than there are, and do where ``fixed``.
    """
    seconds = cost_of(kept)
    have = float((ratio.index_select(0, kept) * seconds).sum()) + others
    ratio.index_fill_(0, kept, -1.0)
    best = largest(ratio, room)                            # nothing beyond the room can join
    if fixed:
        return best
    costs = cost_of(best)
    joins = worthwhile(ratio.index_select(0, best) * costs, costs, have, float(seconds.sum()) + constant_s)
    return best.index_select(0, joins)


def worthwhile(gains, seconds, have, spent):
    """int64: which candidates, (n,) float64 both, make ``(have + gains) / (spent + seconds)`` largest: those that the
    greedy rule takes one by one. Who is below the ratio of all that are left goes, until nobody is (Dinkelbach 1967):
    a few passes instead of a sort."""
    left = positions(gains * spent > have * seconds)
    while True:
        gained, cost = gains.index_select(0, left), seconds.index_select(0, left)
        stays = positions(gained * (spent + cost.sum()) > (have + gained.sum()) * cost)
        if len(stays) == len(left):
            return left
        left = left.index_select(0, stays)
