"""What estimators from cooperative game theory share. Players are a cohort's clients, v is the utility of a coalition.

C clients, coalitions are rows of a (M, C) bool tensor, orders are rows of a (L, C) int64 tensor: permutations in which
clients join. Players are numbered by increasing id, so that what is drawn does not depend on the order of rows.
"""

import math
import sys
from typing import Literal, get_args

import numpy as np
import torch

from fedmpi.core.parts import Contribution, Scores, nothing

# What a utility is about; accuracy is the old name of the headline.
Of = Literal["loss", "headline", "accuracy"]
SEES = "updates, the server's samples"


def contribution(of, estimate, refuses=nothing, notes=nothing):
    """The part whose scores are ``estimate(v, C, gen) -> (phi (C,), standard errors (C,) or None)`` of each round's
    game ``v(coalitions (M, C) bool) -> (M,) float64``, which forgets from round to round."""
    check_of(of)

    def score(state, cohort, utility, gen):
        v, rank = by_id(cohort, utility, of)
        phi, error = estimate(v, len(rank), gen)
        return Scores(phi[rank], error=None if error is None else error[rank])

    return Contribution(score, validated=True, refuses=refuses, sees=SEES, notes=notes)


def check_of(of):
    if of not in get_args(Of):
        raise ValueError(f"of must be loss, headline or accuracy, got {of!r}")


def check_limit(limit):
    if not 1 <= limit <= 24:
        raise ValueError(f"limit must be in 1..24, got {limit}: the most clients of whom all coalitions are asked")


def check_budget(budget):
    if budget < 0 or budget == 1:
        raise ValueError(f"budget must be 0 (none) or at least 2 distinct coalitions a round, got {budget}")


def by_id(cohort, utility, of):
    """``(v, rank)``: the utility of coalitions whose columns are the clients by increasing id, and, (C,) int64, the
    column of each of the cohort's rows."""
    rank = cohort.clients.argsort().argsort()
    return lambda coalitions: utility(coalitions[:, rank], of), rank


def ends(C):
    """``(2, C) bool``: nobody, and everybody."""
    return torch.tensor([False, True])[:, None].repeat(1, C)


def at_most(limit, instead):
    """A ``refuses`` for cohorts of more than ``limit`` clients, with ``instead`` as the way out."""

    def refuses(facts):
        C = facts.largest
        if C > limit:
            yield f"a cohort of {C} clients has 2^{C} coalitions, and limit={limit} clients; {instead}"

    return refuses


def affordable(budget, least):
    """A ``refuses`` for cohorts of C for which ``budget`` coalitions do not pay ``least(C)``; 0 pays for all."""

    def refuses(facts):
        C = facts.largest
        if 0 < budget < least(C):
            yield f"a budget of {budget} coalitions does not pay for {C} clients; it takes {least(C)}"

    return refuses


def powerset(C):
    """``(2^C, C) bool``, all coalitions: row b holds the clients whose bits are set in b."""
    return torch.arange(1 << C)[:, None].bitwise_right_shift(torch.arange(C)).bitwise_and(1).bool()


def shapley_value(coalitions, v):
    """``(C,) float64``: the Shapley value of the game that gives the rows of ``powerset`` the utilities ``v (2^C,)``.

    ``sum_S a(|S|) (v(S + n) - v(S))`` with ``a(s) = s! (C - s - 1)! / C!``, as one product over the whole table."""
    C = coalitions.shape[1]
    a = torch.tensor([1 / (C * math.comb(C - 1, s)) for s in range(C)], dtype=torch.float64)
    size = coalitions.sum(dim=1)
    joined, left = a[(size - 1).clamp(min=0)], a[size.clamp(max=C - 1)]
    return (v - v[0]) @ torch.where(coalitions, joined[:, None], -left[:, None])


def draw_orders(gen, L, C):
    """``(L, C) int64``: L permutations of C players."""
    return torch.from_numpy(gen.permuted(np.tile(np.arange(C), (L, 1)), axis=1))


def prefixes(orders):
    """``(..., C + 1, C) bool``: the coalitions that grow along ``orders (..., C)``, from nobody to everybody."""
    joins = orders.argsort(dim=-1)                       # when each player joins
    return joins[..., None, :] < torch.arange(orders.shape[-1] + 1)[:, None]


def gains(orders, levels):
    """``(..., C)``: by player, what the utility grew when it joined; ``levels (..., C + 1)`` belong to ``prefixes``."""
    return levels.diff(dim=-1).gather(-1, orders.argsort(dim=-1))


def purse(budget):
    """``(pay, left)`` of a budget of distinct coalitions, 0 for no limit. ``pay(groups (G, M, C) bool) -> int``: how
    many of the groups, from the first on, it pays for; what it paid for before is free. ``left() -> int``: the rest."""
    paid = set()

    def pay(groups):
        if not budget:
            return len(groups)
        for number, group in enumerate(np.packbits(groups.numpy(), axis=-1)):
            new = {row.tobytes() for row in group} - paid
            if len(paid) + len(new) > budget:
                return number
            paid.update(new)
        return len(groups)

    return pay, lambda: budget - len(paid) if budget else sys.maxsize


def mean_and_error(samples):
    """Mean (C,) and its standard error (C,) of independent ``samples (m, C)``; no error of one sample alone."""
    m = len(samples)
    return samples.mean(dim=0), samples.std(dim=0) / math.sqrt(m) if m > 1 else None
