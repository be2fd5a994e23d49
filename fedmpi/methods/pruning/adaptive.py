"""A sparsity for every client, by what it contributes (the thesis's "rate by contribution").

Every ``every`` rounds clients are ranked ``by`` their remembered contribution, or as controls by data size or once at
random. With z_n in [-1, 1] the centred rank, 1 for the best,

    rate_n = clip(sparsity - spread z_n + c, least, most),   c such that the mean rate is ``sparsity``: an equal budget

or, with ``groups = k``, the thesis's two groups: the best k get sparsity - spread, the last k sparsity + spread. A
positive spread prunes low contributors more (the thesis's conclusion), a negative one high contributors. Changes below
``hysteresis`` are ignored. One ranking a layer serves all: magnitudes of the server's dense vector, residuals included,
then ``fraction/2 (1 + cos)`` of the budget drawn at random as in ``fedmpi.methods.pruning.residual``. A
client's mask is the
first part of that ranking, so masks are nested, and their union is that of the client pruned least: exploration is for
those with room. The model that is tested and served is cut to ``sparsity`` by the same ranking (``accuracy_before``:
the union).
"""

from typing import Literal

import torch

from fedmpi.core.mask import (Distribution, bearable, budgets, check, cosine_decay, draw, falling,
                              never_moves, positions, top)
from fedmpi.core.parts import Pruner, Round


def adaptive(sparsity: float = 0.8, spread: float = 0.1,
             by: Literal["contribution", "size", "random"] = "contribution", groups: int = 0,
             least: float = 0.0, most: float = 0.98, hysteresis: float = 0.02, every: int = 5,
             distribution: Distribution = "erk", fraction: float = 0.1):
    """Nested masks, sparser for those who contribute less.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by pruning, its rate by
        contribution.
    Up: the values of the client's own mask: (1 - sparsity) of a dense update in the mean over clients.
    Down: as many values, and the positions of the client's own mask every round, where static sends them once.
    Example: fedmpi train --strategy thesis --pruner adaptive:spread=0.1
    """
    check(sparsity, distribution, "random", every, fraction)
    if by not in ("contribution", "size", "random"):
        raise ValueError(f"by must be contribution, size or random, got {by!r}")
    if not 0 <= least <= sparsity <= most < 1:
        raise ValueError(f"least <= sparsity <= most must hold in [0, 1), got {least}, {sparsity}, {most}")
    if not -1 <= spread <= 1:
        raise ValueError(f"spread must be in [-1, 1], got {spread}")
    if groups < 0 or hysteresis < 0:
        raise ValueError(f"groups and hysteresis must be >= 0, got {groups} and {hysteresis}")

    def share(schedule):
        """The share of the budget that is drawn at random; None where masks stay."""
        stays = schedule.t % every or schedule.t >= schedule.rounds
        return None if stays else cosine_decay(fraction, schedule.t, schedule.rounds)

    def ranked(layout, x, kept, random, gen):
        """``(ranking, mask)``: int32 (sum of kept,), the first ``kept[l]`` positions of each layer's ranking, counted
        in the layer, and where they are."""
        found = []
        mask = torch.zeros(layout.Q, dtype=torch.bool)
        for slot, k in zip(layout.weights, kept):
            sizes, replaced = x[slot.span].abs(), int(k * random)
            sure = top(sizes, k - replaced)
            drawn = draw(~sure, replaced, gen)
            torch.logical_or(sure, drawn, out=mask[slot.span])
            last = gen.permutation(positions(drawn).numpy())
            found += [falling(sizes, positions(sure)).int(), torch.from_numpy(last).int()]
        return torch.cat(found), mask

    def start(layout, x, schedule, gen):
        ranking, mask = ranked(layout, x, budgets(layout, sparsity, distribution), share(schedule), gen)
        return {"rates": torch.zeros(0, dtype=torch.float64), "ranking": ranking}, mask

    def _budget(layout, rates):
        """``{rate: kept weights a layer}``, no layer of a denser client below that of a sparser one."""
        found, kept = {}, [0] * len(layout.weights)
        for rate in sorted(set(rates), reverse=True):
            kept = [max(a, b) for a, b in zip(kept, budgets(layout, rate, distribution))]
            found[rate] = kept
        return found

    def masks(state, mask, x, layout, clients):
        rates = state["rates"].tolist() or [sparsity] * (int(clients.max()) + 1)
        kept = _budget(layout, rates)
        wanted = sorted({rates[client] for client in clients}, reverse=True)
        made = dict(zip(wanted, _nested(layout, state["ranking"], layout.kept(mask), [kept[rate] for rate in wanted])))
        return [made[rates[client]] for client in clients]

    def evolve(state, mask, x, replies, schedule, gen):
        random = share(schedule)
        if random is None:
            return state, mask
        layout, N = replies.layout, len(replies.sizes)
        old = state["rates"] if len(state["rates"]) else torch.full((N,), sparsity, dtype=torch.float64)
        key = state["key"] if "key" in state else torch.from_numpy(gen.permutation(N)).double()
        merit = {"contribution": replies.scores, "size": replies.sizes, "random": key}[by]
        bound = min(most, bearable(layout, distribution))
        rates = settled(old, wanted_rates(merit, sparsity, spread, groups, least, bound), hysteresis, sparsity, least,
                        bound)
        ranking, mask = ranked(layout, x, _budget(layout, rates.tolist())[float(rates.min())], random, gen)
        return {"rates": rates, "ranking": ranking, "key": key}, mask

    def nominal(state, mask, layout):
        held = layout.kept(mask)
        kept = [min(a, b) for a, b in zip(budgets(layout, sparsity, distribution), held)]
        return next(_nested(layout, state["ranking"], held, [kept]))

    def refuses(facts):
        if 2 * groups > facts.clients:
            yield f"two groups of {groups} need {2 * groups} clients, there are {facts.clients}"

    def notes(facts):
        yield from never_moves(lambda t: share(Round(t, facts.rounds)) is not None, facts.rounds,
                               f"every={every} leaves it no round before the last one")
        idle = [name for name in ("by", "groups", "least", "most", "hysteresis") if name in facts.given]
        if spread == 0 and idle:
            yield f"with spread=0 all clients have the same sparsity: no effect of {', '.join(idle)}"

    return Pruner(start, evolve, residuals=True, exact=False, masks=masks, nominal=nominal,
                  refuses=refuses, notes=notes, planned=share)


def _nested(layout, ranking, held, budgets):
    """A mask, bool (Q,), for each of the ``budgets``, the smallest first: the first ``kept[l]`` of each layer's
    ``held[l]`` positions in the ``ranking``."""
    mask, before = torch.zeros(layout.Q, dtype=torch.bool), [0] * len(held)
    for kept in budgets:
        for slot, ranked, start, stop in zip(layout.weights, ranking.split(held), before, kept):
            mask[slot.span].numpy()[ranked[start:stop].numpy()] = True             # faster than torch's by half
        yield mask
        mask, before = mask.clone(), kept


def centred_ranks(merit):
    """float64 (N,) in [-1, 1]: 1 for the largest, -1 for the smallest, ties share the mean of their ranks."""
    N = len(merit)
    below = (merit[:, None] > merit).sum(dim=1).double()
    equal = (merit[:, None] == merit).sum(dim=1).double()
    return (2 * (below + (equal - 1) / 2) - (N - 1)) / max(N - 1, 1)


def wanted_rates(merit, sparsity, spread, groups, least, most):
    """float64 (N,): each client's sparsity by its rank in ``merit (N,)``, of mean ``sparsity``."""
    z = centred_ranks(merit)
    if groups:
        order = z.argsort(stable=True)
        z = torch.zeros_like(z)
        z[order[-groups:]], z[order[:groups]] = 1, -1
        if bool((merit == merit[0]).all()):
            z.zero_()                                    # nobody has been told from anybody yet
    return shifted(sparsity - spread * z, torch.ones(len(z), dtype=torch.bool), sparsity, least, most)


def settled(old, new, hysteresis, sparsity, least, most):
    """``new`` where it differs from ``old`` by the hysteresis or more, ``old`` elsewhere; of mean ``sparsity``
    again."""
    moving = (new - old).abs() >= hysteresis
    if not moving.any():
        return old
    return shifted(torch.where(moving, new, old), moving, sparsity, least, most)


def shifted(rates, free, sparsity, least, most):
    """The rates, those of ``free (N,) bool`` moved by one number, within bounds, so that the mean is ``sparsity``; all
    moved where that does not suffice."""
    if free.all() and bool((rates == rates[0]).all()):
        return torch.full_like(rates, sparsity)
    low, high = least - float(rates.max()), most - float(rates.min())

    def moved(c):
        return torch.where(free, (rates + c).clamp(least, most), rates)

    if not free.all() and not moved(low).mean() <= sparsity <= moved(high).mean():
        return shifted(rates, torch.ones_like(free), sparsity, least, most)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if moved(middle).mean() < sparsity else (low, middle)
    return moved(high)
