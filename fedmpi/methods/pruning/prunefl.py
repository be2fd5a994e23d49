"""PruneFL's adaptive pruning: keep the weights with the most decrease of the risk per second.

Training the set M for a round is taken to lower the risk by ``sum_{j in M} g_j^2`` and to cost
``c + sum_{j in M} t_j`` seconds (arXiv 1909.12326). Every ``every`` rounds

    clients send the mean g_j^2 of every prunable weight over the round's local steps
    of a layer, the  decrease 0.5^(t / half_life)  smallest magnitudes become removable
    candidates (removable and pruned) join by falling g_j^2 / t_j while that beats

        sum_{j in M} g_j^2 / (c + sum_{j in M} t_j)         of the set M so far

Weights that return start at 0. A weight of layer l costs ``t_j = comm_s + 3 compute_s uses_l
samples``: its way over the network, and its multiplications forward and backward in a round (the
paper measures both on a device; here they are options). The density is an outcome; ``sparsity``
caps it from the first mask on. ``fixed`` fills exactly up to the cap, for comparisons at equal
sparsity.

The paper's first stage (pruning at one chosen client before federation) is not played: the first
mask takes the magnitudes within the budget, and the first reconfiguration comes at round
``every``. Gradients are gathered in the reconfiguration round itself, since clients keep nothing
between rounds. The paper reconfigures every 50th of its 10,001 rounds.
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

    Paper: Jiang et al. 2023, "Model Pruning Enables Efficient Federated Learning on Edge Devices",
        arXiv 1909.12326.
    Up: the kept values; in reconfiguring rounds also one float for every prunable weight, as much
        as a dense update.
    Down: the kept values, and the mask's changes after it moved; how many are kept is an outcome.
    Example: fedmpi train --strategy prunefl --pruner prunefl:every=5
    """
    check(sparsity, distribution, init, every, decrease)
    if min(constant_s, comm_s, compute_s) < 0 or comm_s + compute_s == 0:
        raise ValueError("constant_s, comm_s and compute_s are seconds >= 0, and a weight must "
                         "cost something")
    if not half_life > 0:
        raise ValueError(f"half_life must be > 0 rounds, got {half_life}")

    def start(layout, x, now, gen):
        kept = budgets(layout, sparsity, distribution)
        return {}, first_mask(layout, x, kept, init, gen)

    def due(now):
        """Whether the mask is reconfigured after this round; never after the last."""
        if now.t >= now.rounds:
            return False
        return now.t % every == 0

    def seconds(macs, samples):
        """t_j: of a weight with so many multiplications a sample."""
        # 3: one multiplication forward, two backward.
        return comm_s + 3 * compute_s * macs * samples

    def probe(task):
        if not due(task.now):
            return Probe()
        return squares_probe(task)

    def evolve(state, mask, x, replies, now, gen):
        if not due(now):
            return state, mask
        layout = replies.layout
        others, samples = mean_totals(replies)
        costs = [seconds(macs, samples) for macs in replies.macs_per_weight]
        squares = [report["squares"] for report in replies.reports]
        ratio = ratios(layout, squares, replies.weights.tolist(), costs)
        removable = decrease * 0.5 ** (now.t / half_life)
        sure = _sure(layout, mask, x, removable)
        kept = positions(sure)
        cap = sum(budgets(layout, sparsity, distribution))
        room = max(cap - len(kept), 0)

        def cost_of(places):
            """float64 (n,): t_j of the weights at ``places (n,)``."""
            return seconds_of(layout, places, costs)

        new = joining(ratio, cost_of, kept, room, others, constant_s, fixed)
        return state, sure.index_fill_(0, new, True)

    def notes(facts):
        # Without removable weights the cap has no room for others.
        def moves(t):
            return decrease > 0 and due(Round(t, facts.rounds))

        reason = f"every={every} and decrease={decrease} leave it no round before the last one"
        return never_moves(moves, facts.rounds, reason)

    return Pruner(
        start, evolve, probe, exact=fixed, notes=notes, planned=due, watches=True)


# --- on clients ---

def squares_probe(task):
    """The ``Probe`` that reports mean squared gradients.

    ``squares`` float32, one a prunable weight; ``others (2,)`` float64: their sum over all other
    weights, and the samples of the training."""
    total = torch.zeros_like(task.g)
    num_steps = 0
    _, _, samples = length_of(task)

    def step(g):
        """Adds the squares of one step's gradient (R,)."""
        nonlocal num_steps
        total.addcmul_(g, g)
        num_steps += 1

    def report():
        """The means over the steps."""
        Q = task.layout.Q
        mean = total / max(num_steps, 1)
        squares = mean.cpu()
        # Biases and norms: they are never pruned.
        others = squares[Q:].double().sum()
        totals = np.array([float(others), samples])
        # Padding does not travel.
        prunable = squares[:Q][task.layout.full_mask()]
        return {"squares": prunable.numpy(), "others": totals}

    return Probe(step=step, report=report, dense=samples)


# --- on the server ---

def mean_totals(replies):
    """``(others, samples)``: the clients' two totals, each in the mean by weight."""
    weights = replies.weights.tolist()
    totals = [report["others"] for report in replies.reports]

    def mean(i):
        """The mean of the i-th total."""
        values = [float(total[i]) for total in totals]
        pairs = zip(weights, values)
        return sum(weight * value for weight, value in pairs)

    return mean(0), mean(1)


def seconds_of(layout, places, costs):
    """float64 (n,): the seconds that weights at sorted ``places (n,)`` cost, by layer."""
    counts = [len(in_layer) for in_layer in by_layer(layout, places)]
    costs = torch.tensor(costs, dtype=torch.float64)
    return costs.repeat_interleave(torch.tensor(counts))


def _sure(layout, mask, x, removable):
    """bool (Q,): the kept weights without a ``removable`` share of least magnitude a layer."""
    layers = living(layout, mask)
    kept = [_num_sure(len(live), removable) for live in layers]
    return top_among(layout, layers, x, kept)


def _num_sure(active, removable):
    """How many of a layer's ``active`` weights are not removable."""
    least = min(MIN_KEPT, active)
    return max(active - int(removable * active), least)


def ratios(layout, squares, weights, costs):
    """float32 (Q,): the mean squared gradients over the ``costs`` of each layer's weights.

    -1 on padding. ``squares`` are arrays (num_weights,), one a client, with its weight in
    ``weights``."""
    ratio = torch.full((layout.Q,), -1.0)
    start = 0
    for slot, cost in zip(layout.weights, costs):
        in_layer = ratio[slot.span].zero_()
        end = start + slot.size
        for of_client, weight in zip(squares, weights):
            own = torch.from_numpy(of_client[start:end])
            in_layer.add_(own, alpha=weight / cost)
        start = end
    return ratio


def joining(ratio, cost_of, kept, room, others, constant_s, fixed):
    """int64, sorted: the positions that join ``kept``, sorted positions, by the greedy rule.

    The rule finds the maximum of ``sum g^2 / sum t`` over supersets. ``ratio (Q,)``: squared
    gradient per second, negative on padding; it is overwritten at ``kept``. ``cost_of(places) ->
    (n,) float64`` seconds; ``others``: the squared gradients of weights that are never pruned;
    ``room``: how many may join, no more than there are; if ``fixed``, as many do.
    """
    seconds = cost_of(kept)
    squares = ratio.index_select(0, kept) * seconds
    have = float(squares.sum()) + others
    spent = float(seconds.sum()) + constant_s
    ratio.index_fill_(0, kept, -1.0)
    # Nothing beyond the room can join.
    best = largest(ratio, room)
    if fixed:
        return best
    costs = cost_of(best)
    gains = ratio.index_select(0, best) * costs
    joins = worthwhile(gains, costs, have, spent)
    return best.index_select(0, joins)


def worthwhile(gains, seconds, have, spent):
    """int64: the candidates for the largest ``(have + gains) / (spent + seconds)``.

    ``gains`` and ``seconds`` are (n,) float64. The greedy rule would take the same ones, one by
    one. Here candidates below the common ratio go, until none is below it (Dinkelbach 1967): a few
    passes instead of a sort."""
    left = positions(gains * spent > have * seconds)
    while True:
        gained = gains.index_select(0, left)
        cost = seconds.index_select(0, left)
        # Cross-multiplied: gained / cost > all gains / all seconds.
        all_seconds = spent + cost.sum()
        all_gains = have + gained.sum()
        stays = positions(gained * all_seconds > all_gains * cost)
        if len(stays) == len(left):
            return left
        left = left.index_select(0, stays)
