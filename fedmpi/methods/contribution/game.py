"""Shared by the estimators from cooperative game theory: a cohort's clients are the players.

    v(S): the utility of the merge of the coalition S's updates

Sizes: C clients; coalitions are rows of a (M, C) bool tensor; orders are rows of a (L, C) int64
tensor, permutations in which clients join. Players are numbered by increasing id, so that random
draws do not depend on the order of rows.
"""

import math
import sys
from typing import Literal, get_args

import numpy as np
import torch

from fedmpi.core.parts import Contribution, Scores, nothing

# The measure behind a utility; accuracy is the old name of the headline.
Of = Literal["loss", "headline", "accuracy"]
SEES = "updates, the server's samples"


# --- the part ---

def contribution(of, estimate, refuses=nothing, notes=nothing):
    """The part with the scores ``estimate(v, C, gen) -> (phi (C,), standard errors (C,) or None)``.

    ``v(coalitions (M, C) bool) -> (M,) float64`` is each round's game. Nothing is remembered from
    round to round. ValueError for an unknown ``of``."""
    check_of(of)

    def score(state, cohort, utility, gen):
        """The estimate, back in the order of the cohort's rows."""
        v, rank = by_id(cohort, utility, of)
        phi, error = estimate(v, len(rank), gen)
        if error is not None:
            error = error[rank]
        return Scores(phi[rank], error=error)

    return Contribution(
        score,
        validated=True,
        refuses=refuses,
        sees=SEES,
        notes=notes,
    )


def check_of(of):
    if of not in get_args(Of):
        raise ValueError(f"of must be loss, headline or accuracy, got {of!r}")


def check_limit(limit):
    if not 1 <= limit <= 24:
        raise ValueError(f"limit must be in 1..24, got {limit}: the most clients of whom all "
                         "coalitions are asked")


def check_budget(budget):
    if budget < 0 or budget == 1:
        raise ValueError("budget must be 0 (none) or at least 2 distinct coalitions a round, got "
                         f"{budget}")


def by_id(cohort, utility, of):
    """``(v, rank (C,) int64)``: the game with a column a client by increasing id.

    ``rank`` is the column of each of the cohort's rows."""
    rank = cohort.clients.argsort().argsort()

    def v(coalitions):
        """float64 (M,): the utilities of ``coalitions (M, C) bool``, columns by id."""
        return utility(coalitions[:, rank], of)

    return v, rank


def at_most(limit, instead):
    """A ``refuses`` for cohorts of more than ``limit`` clients, with ``instead`` as the way out."""

    def refuses(facts):
        C = facts.largest
        if C > limit:
            yield (f"a cohort of {C} clients has 2^{C} coalitions, and limit={limit} clients; "
                   f"{instead}")

    return refuses


def affordable(budget, least):
    """A ``refuses`` for cohorts of C that need more than ``budget`` coalitions; 0 pays for all.

    ``least(C)`` is how many they need."""

    def refuses(facts):
        C = facts.largest
        if 0 < budget < least(C):
            yield (f"a budget of {budget} coalitions does not pay for {C} clients; it takes "
                   f"{least(C)}")

    return refuses


# --- all coalitions ---

def powerset(C):
    """``(2^C, C) bool``, all coalitions: row b holds the clients whose bits are set in b."""
    rows = torch.arange(1 << C)[:, None]
    shifted = rows.bitwise_right_shift(torch.arange(C))
    return shifted.bitwise_and(1).bool()


def ends(C):
    """``(2, C) bool``: nobody, and everybody."""
    both = torch.tensor([False, True])
    return both[:, None].repeat(1, C)


def exact(v, C):
    """``(C,) float64``: the Shapley value of the game ``v``.

    ``v(coalitions (M, C) bool) -> (M,) float64`` is asked for all 2^C coalitions in one batch.

    Player 0 brings 1, and players 1 and 2 bring 2 more if both are there:

    >>> def v(coalitions):
    ...     both = coalitions[:, 1] & coalitions[:, 2]
    ...     return coalitions[:, 0].double() + 2 * both
    >>> exact(v, 3)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    coalitions = powerset(C)
    return shapley_value(coalitions, v(coalitions))


def shapley_value(coalitions, v):
    """``(C,) float64``: the Shapley value of a game, ``v (2^C,)`` for the rows of ``powerset``.

    ``sum_S a(|S|) (v(S + n) - v(S))`` with ``a(s) = s! (C - s - 1)! / C!``, as one product over
    the whole table."""
    C = coalitions.shape[1]
    a = [_share_of_orders(s, C) for s in range(C)]
    a = torch.tensor(a, dtype=torch.float64)
    size = coalitions.sum(dim=1)
    # A coalition counts a(|S| - 1) for each member and -a(|S|) for all others.
    joined = a[(size - 1).clamp(min=0)]
    left = a[size.clamp(max=C - 1)]
    factors = torch.where(coalitions, joined[:, None], -left[:, None])
    return (v - v[0]) @ factors


def _share_of_orders(s, C):
    """``s! (C - s - 1)! / C!``: how often just s given players stand before a given one."""
    return 1 / (C * math.comb(C - 1, s))


# --- orders of joining ---

def draw_orders(gen, L, C):
    """``(L, C) int64``: L permutations of C players."""
    unshuffled = np.tile(np.arange(C), (L, 1))
    return torch.from_numpy(gen.permuted(unshuffled, axis=1))


def with_reverses(orders):
    """``(L, 2, C)``: each of the orders (L, C), and its reverse."""
    return torch.stack([orders, orders.flip(1)], dim=1)


def prefixes(orders):
    """``(..., C + 1, C) bool``: the coalitions that grow along ``orders (..., C)``.

    The first is nobody, the last everybody."""
    C = orders.shape[-1]
    joins_at = orders.argsort(dim=-1)
    sizes = torch.arange(C + 1)
    return joins_at[..., None, :] < sizes[:, None]


def gains(orders, levels):
    """``(..., C)``: by player, the growth of the utility when it joined.

    ``levels (..., C + 1)`` are the utilities of ``prefixes``."""
    joins_at = orders.argsort(dim=-1)
    return levels.diff(dim=-1).gather(-1, joins_at)


def mean_and_error(samples):
    """Mean (C,) and its standard error (C,) of independent ``samples (m, C)``.

    One sample alone has the error None."""
    m = len(samples)
    mean = samples.mean(dim=0)
    if m < 2:
        return mean, None
    deviation = samples.std(dim=0)
    return mean, deviation / math.sqrt(m)


# --- budgets ---

def purse(budget):
    """``(pay, left)`` of a budget of distinct coalitions, 0 for no limit.

    ``pay(groups (G, M, C) bool) -> int``: how many of the groups, from the first on, it pays for;
    a coalition that was paid before is free. ``left() -> int``: the rest of the budget."""
    if not budget:
        return _pay_all, _endless
    paid = set()

    def pay(groups):
        # Bits: a coalition is the key of a set.
        packed = np.packbits(groups.numpy(), axis=-1)
        for number, group in enumerate(packed):
            coalitions = {row.tobytes() for row in group}
            new = coalitions - paid
            if len(paid) + len(new) > budget:
                return number
            paid.update(new)
        return len(groups)

    def left():
        return budget - len(paid)

    return pay, left


def _pay_all(groups):
    return len(groups)


def _endless():
    return sys.maxsize
