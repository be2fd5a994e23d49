"""A sparsity for every client, by what it contributes (the thesis's "rate by contribution").

Every ``every`` rounds clients are ranked ``by`` their remembered contribution, or as controls by
data size or once at random. With the centred rank z_n in [-1, 1], 1 for the best,

    rate_n = clip(sparsity - spread z_n + c, least, most),      c such that the mean is ``sparsity``

so that the budget is as for equal rates. Or, with ``groups = k``, the thesis's two groups: the
best k get sparsity - spread, the last k sparsity + spread. A positive spread prunes low
contributors more (the thesis's conclusion), a negative one high contributors. Changes below
``hysteresis`` are ignored.

One ranking a layer serves all: magnitudes of the server's dense vector, residuals included, then
``fraction/2 (1 + cos)`` of the budget drawn at random as in ``fedmpi.methods.pruning.residual``. A
client's mask is the first part of the ranking, so masks are nested, and their union is the mask
of the client pruned least: exploration is for clients with room. The tested and served model is
cut to ``sparsity`` by the same ranking (``accuracy_before``: the union).
"""

from typing import Literal

import torch

from fedmpi.core.mask import (Distribution, bearable, budgets, check, cosine_decay, draw, falling,
                              never_moves, positions, top)
from fedmpi.core.parts import Pruner, Round
from fedmpi.methods.pruning.pattern import pattern_of, patterned

# Halvings of the interval of c: float64 has 52 bits.
HALVINGS = 60


def adaptive(sparsity: float = 0.8, spread: float = 0.1,
             by: Literal["contribution", "size", "random"] = "contribution", groups: int = 0,
             least: float = 0.0, most: float = 0.98, hysteresis: float = 0.02, every: int = 5,
             distribution: Distribution = "erk", fraction: float = 0.1, block: str = "none"):
    """Nested masks, sparser for those who contribute less.

    ``block=8`` keeps or prunes blocks of 8 x 8 weights, ``block=16x1`` of 16 outputs and one input.

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
    _check_ranking(by, spread, groups, hysteresis)
    pattern = pattern_of(block, "none")

    def share(now):
        """The share of the budget that is drawn at random; None if masks stay."""
        if now.t % every:
            return None
        # After the last round nobody would train the new masks.
        if now.t >= now.rounds:
            return None
        return cosine_decay(fraction, now.t, now.rounds)

    def start(layout, x, now, gen):
        kept = budgets(layout, sparsity, distribution)
        ranking, mask = ranked(layout, x, kept, share(now), gen)
        # Clients are not ranked before the first update.
        no_rates = torch.zeros(0, dtype=torch.float64)
        return {"rates": no_rates, "ranking": ranking}, mask

    def masks(state, mask, x, layout, clients):
        rates = _rates_of_all(state, clients, sparsity)
        kept_at = _kept_at(layout, rates, distribution)
        own_rates = [rates[client] for client in clients.tolist()]
        return _masks_at(own_rates, kept_at, layout, state["ranking"], mask)

    def evolve(state, mask, x, replies, now, gen):
        random = share(now)
        if random is None:
            return state, mask
        layout = replies.layout
        key = _key(state, len(replies.sizes), gen)
        merits = {"contribution": replies.scores, "size": replies.sizes, "random": key}
        # No sparser than every layer bears.
        bound = min(most, bearable(layout, distribution))
        wanted = wanted_rates(merits[by], sparsity, spread, groups, least, bound)
        old = _rates_before(state, wanted, sparsity)
        rates = settled(old, wanted, hysteresis, sparsity, least, bound)
        kept = _densest(layout, rates.tolist(), distribution)
        ranking, mask = ranked(layout, x, kept, random, gen)
        return {"rates": rates, "ranking": ranking, "key": key}, mask

    def nominal(state, mask, layout):
        kept = budgets(layout, sparsity, distribution)
        return _cut(layout, state["ranking"], mask, kept)

    def refuses(facts):
        if 2 * groups > facts.clients:
            yield f"two groups of {groups} need {2 * groups} clients, there are {facts.clients}"

    def notes(facts):
        yield from _never_ranked(share, every, facts.rounds)
        yield from _idle_options(facts, spread)

    part = Pruner(
        start,
        evolve,
        keeps_pruned_values=True,
        # The mask is a union, as dense as the densest client.
        exact=False,
        masks=masks,
        nominal=nominal,
        refuses=refuses,
        notes=notes,
        planned=share,
    )
    return patterned(part, pattern)


def _check_rates(sparsity, least, most):
    if not 0 <= least <= sparsity <= most < 1:
        raise ValueError("least <= sparsity <= most must hold in [0, 1), got "
                         f"{least}, {sparsity}, {most}")


def _check_ranking(by, spread, groups, hysteresis):
    if by not in ("contribution", "size", "random"):
        raise ValueError(f"by must be contribution, size or random, got {by!r}")
    if not -1 <= spread <= 1:
        raise ValueError(f"spread must be in [-1, 1], got {spread}")
    if groups < 0 or hysteresis < 0:
        raise ValueError(f"groups and hysteresis must be >= 0, got {groups} and {hysteresis}")


def _never_ranked(share, every, rounds):
    """A line for the user if there is no ranking after round 0."""

    def moves(t):
        """Whether there are new masks after round t."""
        return share(Round(t, rounds)) is not None

    reason = f"every={every} leaves it no round before the last one"
    return never_moves(moves, rounds, reason)


def _idle_options(facts, spread):
    """A line for the user if somebody gave options that need a spread, and there is none."""
    if spread > 0:
        return
    options = ("by", "groups", "least", "most", "hysteresis")
    idle = [name for name in options if name in facts.user_options]
    if idle:
        yield ("with spread=0 all clients have the same sparsity: no effect of "
               f"{', '.join(idle)}")


# --- state ---

def _rates_of_all(state, clients, sparsity):
    """A list of the rates of all clients, or up to the last of ``clients`` before any update."""
    rates = state["rates"].tolist()
    if rates:
        return rates
    last = int(clients.max())
    return [sparsity] * (last + 1)


def _rates_before(state, wanted, sparsity):
    """float64 (N,): the clients' rates so far, ``sparsity`` before the first update."""
    rates = state["rates"]
    if len(rates):
        return rates
    return torch.full_like(wanted, sparsity)


def _key(state, N, gen):
    """float64 (N,): the random merits of N clients, drawn once."""
    if "key" in state:
        return state["key"]
    order = gen.permutation(N)
    return torch.from_numpy(order).double()


# --- masks ---

def ranked(layout, x, kept, random, gen):
    """``(ranking, mask)``: int32 (sum of kept,), bool (Q,).

    The first ``kept[l]`` positions of each layer's ranking, counted in the layer, and where they
    are. A share ``random`` of them is drawn, and comes last."""
    pieces = []
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, k in zip(layout.weights, kept):
        sizes = x[slot.span].abs()
        # The last part of the ranking, in any order.
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


def _densest(layout, rates, distribution):
    """Kept weights a layer of the client pruned least."""
    kept_at = _kept_at(layout, rates, distribution)
    return kept_at[min(rates)]


def _cut(layout, ranking, mask, kept):
    """bool (Q,): the first ``kept`` weights a layer of the mask's, fewer if it has no more."""
    held = layout.kept(mask)
    kept = [min(pair) for pair in zip(kept, held)]
    return next(_nested(layout, ranking, held, [kept]))


def _masks_at(rates, kept_at, layout, ranking, mask):
    """A mask, bool (Q,), for each of the ``rates``; one object for equal rates."""
    # The sparsest first: each mask adds to the one before.
    distinct = sorted(set(rates), reverse=True)
    wanted = [kept_at[rate] for rate in distinct]
    held = layout.kept(mask)
    nested = _nested(layout, ranking, held, wanted)
    mask_at = dict(zip(distinct, nested))
    return [mask_at[rate] for rate in rates]


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
    last = N - 1
    return (2 * rank - last) / max(last, 1)


def wanted_rates(merit, sparsity, spread, groups, least, most):
    """float64 (N,): each client's sparsity by its rank in ``merit (N,)``, of mean ``sparsity``."""
    z = centred_ranks(merit)
    if groups:
        z = _in_groups(z, merit, groups)
    rates = sparsity - spread * z
    everybody = torch.ones(len(z), dtype=torch.bool)
    return shifted(rates, everybody, sparsity, least, most)


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
    """The rates, the ``free (N,) bool`` ones moved by one number to the mean ``sparsity``.

    They stay in [least, most]. All are moved if the free ones do not suffice."""
    all_free = bool(free.all())
    if all_free and bool((rates == rates[0]).all()):
        return torch.full_like(rates, sparsity)
    low = least - float(rates.max())
    high = most - float(rates.min())

    def moved(c):
        """The rates with the free ones moved by c."""
        bounded = (rates + c).clamp(least, most)
        return torch.where(free, bounded, rates)

    smallest = moved(low).mean()
    largest = moved(high).mean()
    reachable = smallest <= sparsity <= largest
    if not all_free and not reachable:
        return shifted(rates, torch.ones_like(free), sparsity, least, most)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if moved(middle).mean() < sparsity:
            low = middle
        else:
            high = middle
    return moved(high)
