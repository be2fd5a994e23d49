"""A sparsity for every client, by what it contributes (the thesis's "rate by contribution").

Every ``every`` rounds clients are ranked ``by`` their remembered contribution, or as controls by
data size or once at random. With z_n in [-1, 1] the centred rank, 1 for the best,

    rate_n = clip(sparsity - spread z_n + c, least, most),      c such that the mean is ``sparsity``

so that the budget is that of equal rates. Or, with ``groups = k``, the thesis's two groups: the
best k get sparsity - spread, the last k sparsity + spread. A positive spread prunes low
contributors more (the thesis's conclusion), a negative one high contributors. Changes below
``hysteresis`` are ignored.

One ranking a layer serves all: magnitudes of the server's dense vector, residuals included, then
``fraction/2 (1 + cos)`` of the budget drawn at random as in ``fedmpi.methods.pruning.residual``. A
client's mask is the first part of that ranking, so masks are nested, and their union is the mask
of the client pruned least: exploration is for clients with room. The model that is tested and
served is cut to ``sparsity`` by the same ranking (``accuracy_before``: the union).
"""

from typing import Literal

import torch

from fedmpi.core.mask import (Distribution, bearable, budgets, check, cosine_decay, draw, falling,
                              never_moves, positions, top)
from fedmpi.core.parts import Pruner, Round

# Halvings of the interval of c: float64 has fewer bits.
HALVINGS = 60


def adaptive(sparsity: float = 0.8, spread: float = 0.1,
             by: Literal["contribution", "size", "random"] = "contribution", groups: int = 0,
             least: float = 0.0, most: float = 0.98, hysteresis: float = 0.02, every: int = 5,
             distribution: Distribution = "erk", fraction: float = 0.1):
    """Nested masks, sparser for those who contribute less.

    Paper: the thesis (2023) that this project implements, on training large models federatedly by
        pruning, its rate by contribution.
    Up: the values of the client's own mask: (1 - sparsity) of a dense update in the mean over
        clients.
    Down: as many values, and the positions of the client's own mask every round, where static
        sends them once.
    Example: fedmpi train --strategy thesis --pruner adaptive:spread=0.1
    """
    check(sparsity, distribution, "random", every, fraction)
    _check_rates(sparsity, least, most)
    if by not in ("contribution", "size", "random"):
        raise ValueError(f"by must be contribution, size or random, got {by!r}")
    if not -1 <= spread <= 1:
        raise ValueError(f"spread must be in [-1, 1], got {spread}")
    if groups < 0 or hysteresis < 0:
        raise ValueError(f"groups and hysteresis must be >= 0, got {groups} and {hysteresis}")

    def share(schedule):
        """The share of the budget that is drawn at random; None if masks stay."""
        if schedule.t % every or schedule.t >= schedule.rounds:
            return None
        return cosine_decay(fraction, schedule.t, schedule.rounds)

    def start(layout, x, schedule, gen):
        kept = budgets(layout, sparsity, distribution)
        ranking, mask = ranked(layout, x, kept, share(schedule), gen)
        no_rates = torch.zeros(0, dtype=torch.float64)
        return {"rates": no_rates, "ranking": ranking}, mask

    def masks(state, mask, x, layout, clients):
        rates = state["rates"].tolist()
        # Clients are not ranked before the first update.
        if not rates:
            rates = [sparsity] * (int(clients.max()) + 1)
        kept = _kept_at(layout, rates, distribution)
        rate_of = [rates[client] for client in clients.tolist()]
        sparsest_first = sorted(set(rate_of), reverse=True)
        wanted = [kept[rate] for rate in sparsest_first]
        nested = _nested(layout, state["ranking"], layout.kept(mask), wanted)
        mask_at = dict(zip(sparsest_first, nested))
        return [mask_at[rate] for rate in rate_of]

    def evolve(state, mask, x, replies, schedule, gen):
        random = share(schedule)
        if random is None:
            return state, mask
        layout = replies.layout
        key = _key(state, len(replies.sizes), gen)
        merit = {"contribution": replies.scores, "size": replies.sizes, "random": key}[by]
        rates = next_rates(state["rates"], merit, bearable(layout, distribution))
        densest = float(rates.min())
        kept = _kept_at(layout, rates.tolist(), distribution)[densest]
        ranking, mask = ranked(layout, x, kept, random, gen)
        return {"rates": rates, "ranking": ranking, "key": key}, mask

    def next_rates(old, merit, bearable_rate):
        """float64 (N,): each client's sparsity from now on, by its ``merit (N,)``."""
        if not len(old):
            old = torch.full((len(merit),), sparsity, dtype=torch.float64)
        bound = min(most, bearable_rate)
        wanted = wanted_rates(merit, sparsity, spread, groups, least, bound)
        return settled(old, wanted, hysteresis, sparsity, least, bound)

    def nominal(state, mask, layout):
        held = layout.kept(mask)
        wanted = budgets(layout, sparsity, distribution)
        kept = [min(pair) for pair in zip(wanted, held)]
        return next(_nested(layout, state["ranking"], held, [kept]))

    def refuses(facts):
        if 2 * groups > facts.clients:
            yield f"two groups of {groups} need {2 * groups} clients, there are {facts.clients}"

    def notes(facts):
        def moves(t):
            return share(Round(t, facts.rounds)) is not None

        reason = f"every={every} leaves it no round before the last one"
        yield from never_moves(moves, facts.rounds, reason)
        options = ("by", "groups", "least", "most", "hysteresis")
        idle = [name for name in options if name in facts.given]
        if spread == 0 and idle:
            yield ("with spread=0 all clients have the same sparsity: no effect of "
                   f"{', '.join(idle)}")

    return Pruner(
        start,
        evolve,
        residuals=True,
        # The union is as dense as the densest client.
        exact=False,
        masks=masks,
        nominal=nominal,
        refuses=refuses,
        notes=notes,
        planned=share,
    )


def _check_rates(sparsity, least, most):
    if not 0 <= least <= sparsity <= most < 1:
        raise ValueError("least <= sparsity <= most must hold in [0, 1), got "
                         f"{least}, {sparsity}, {most}")


def _key(state, N, gen):
    """float64 (N,): the random merits of N clients, drawn once."""
    if "key" in state:
        return state["key"]
    return torch.from_numpy(gen.permutation(N)).double()


# --- masks ---

def ranked(layout, x, kept, random, gen):
    """``(ranking, mask)``: int32 (sum of kept,), bool (Q,).

    The first ``kept[l]`` positions of each layer's ranking, counted in the layer, and where they
    are. A share ``random`` of them is drawn, and comes last."""
    pieces = []
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, k in zip(layout.weights, kept):
        sizes = x[slot.span].abs()
        num_drawn = int(k * random)
        sure = top(sizes, k - num_drawn)
        drawn = draw(~sure, num_drawn, gen)
        torch.logical_or(sure, drawn, out=mask[slot.span])
        first = falling(sizes, positions(sure))
        last = gen.permutation(positions(drawn).numpy())
        pieces.append(first.int())
        pieces.append(torch.from_numpy(last).int())
    return torch.cat(pieces), mask


def _kept_at(layout, rates, distribution):
    """``{rate: kept weights a layer}``, no layer of a denser client below that of a sparser one."""
    kept_at = {}
    kept = [0] * len(layout.weights)
    for rate in sorted(set(rates), reverse=True):
        own = budgets(layout, rate, distribution)
        kept = [max(pair) for pair in zip(kept, own)]
        kept_at[rate] = kept
    return kept_at


def _nested(layout, ranking, held, budgets):
    """A mask, bool (Q,), for each of the ``budgets``, the smallest first.

    Each holds the first ``kept[l]`` of a layer's ``held[l]`` positions in the ``ranking``."""
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    rankings = ranking.split(held)
    before = [0] * len(held)
    for kept in budgets:
        for slot, of_layer, start, stop in zip(layout.weights, rankings, before, kept):
            new = of_layer[start:stop].numpy()
            # Faster than torch's by half.
            mask[slot.span].numpy()[new] = True
        yield mask
        mask = mask.clone()
        before = kept


# --- rates ---

def centred_ranks(merit):
    """float64 (N,) in [-1, 1]: 1 for the largest, -1 for the smallest.

    Ties share the mean of their ranks."""
    N = len(merit)
    others = merit[:, None]
    below = (others > merit).sum(dim=1).double()
    equal = (others == merit).sum(dim=1).double()
    rank = below + (equal - 1) / 2
    return (2 * rank - (N - 1)) / max(N - 1, 1)


def wanted_rates(merit, sparsity, spread, groups, least, most):
    """float64 (N,): each client's sparsity by its rank in ``merit (N,)``, of mean ``sparsity``."""
    z = centred_ranks(merit)
    if groups:
        z = _in_groups(z, merit, groups)
    everybody = torch.ones(len(z), dtype=torch.bool)
    return shifted(sparsity - spread * z, everybody, sparsity, least, most)


def _in_groups(z, merit, groups):
    """float64 (N,): 1 for the best ``groups`` by ``z (N,)``, -1 for as many last ones, else 0."""
    grouped = torch.zeros_like(z)
    # Equal merits tell nobody from anybody yet.
    if bool((merit == merit[0]).all()):
        return grouped
    order = z.argsort(stable=True)
    grouped[order[-groups:]] = 1
    grouped[order[:groups]] = -1
    return grouped


def settled(old, new, hysteresis, sparsity, least, most):
    """``new`` where it differs from ``old`` by the hysteresis or more, else ``old``.

    Of mean ``sparsity`` again."""
    moving = (new - old).abs() >= hysteresis
    if not moving.any():
        return old
    rates = torch.where(moving, new, old)
    return shifted(rates, moving, sparsity, least, most)


def shifted(rates, free, sparsity, least, most):
    """The rates, those of ``free (N,) bool`` moved by one number, so that the mean is ``sparsity``.

    They stay in [least, most]. All are moved if the free ones do not suffice."""
    all_free = bool(free.all())
    if all_free and bool((rates == rates[0]).all()):
        return torch.full_like(rates, sparsity)
    low = least - float(rates.max())
    high = most - float(rates.min())

    def moved(c):
        bounded = (rates + c).clamp(least, most)
        return torch.where(free, bounded, rates)

    reachable = moved(low).mean() <= sparsity <= moved(high).mean()
    if not all_free and not reachable:
        return shifted(rates, torch.ones_like(free), sparsity, least, most)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if moved(middle).mean() < sparsity:
            low = middle
        else:
            high = middle
    return moved(high)
