"""GTG-Shapley: guided truncation (Liu et al., ACM TIST 2022, arXiv 2109.02053).

Mean gains over orders of joining, with the paper's four rules:

* between rounds: where ``|v(all) - v(nobody)| <= eps_round |v(nobody)|`` everybody scores 0, at 2 utilities;
* within an order: it is left, with gains of 0 for those who have not joined, once
  ``|v(all) - v(those who joined)| < eps_inside |v(all) - v(nobody)|``;
* guided sampling: every client is at every position equally often;
* the end: ``mean over clients of |phi_n - phi_n of j orders ago| / |phi_n| < change`` for the last 10 orders, after at
  least 30 (its program's least), or ``permutations`` orders, in whole squares of them.

Where the paper leaves room, or this departs from it: thresholds are shares, not absolute. Guided are all positions:
orders come as Latin squares of C, each client once at each position, which advance side by side, one position a batch
of utilities. In the first square (``balance``) who joins where is decided as it goes, for a client's gains to stem from
company that is typical of its size and not from what it drew: the mean of ``v({n})`` over those who joined stays close
to that of all, and who joined good company so far is sent to bad. Further squares are drawn at random, so that more of
them lead to the exact value.

``budget`` limits distinct coalitions, those of nobody and everybody included (0: no limit). It is spent evenly: a
position is evaluated for all clients or for none. Beyond the last position that the first square could pay, what an
order has left to v(all) is shared equally by those who have not joined; later squares add to the positions they
reached.

Costs 2 + C utilities at least, C - 1 an order at most. No standard errors: the orders of a square are not independent.
Blind spots: those of the exact value; and of small budgets, what clients do for large coalitions. Sees: the updates,
the server's own samples.
"""

from functools import partial

import torch

from fedmpi.methods.contribution.game import (Of, affordable, check_budget, contribution, ends,
                                              gains, purse)

LAST, LEAST = 10, 30          # orders over which the mean must be still, and orders before it is asked


def gtg_shapley(of: Of = "loss", eps_round: float = 1e-4, eps_inside: float = 0.01, balance: bool = True,
                change: float = 0.05, permutations: int = 200, budget: int = 0):
    """Mean gain over guided orders of joining, each left where the rest is small.

    Paper: Liu et al. 2022, "GTG-Shapley: Efficient and Accurate Participant Contribution Evaluation in Federated
        Learning", arXiv 2109.02053.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    Example: fedmpi train --contribution gtg-shapley:budget=100
    """
    check_budget(budget)
    if min(eps_round, eps_inside) < 0:
        raise ValueError(f"eps_round and eps_inside must be >= 0, got {eps_round} and {eps_inside}")
    if permutations < 1:
        raise ValueError(f"permutations must be >= 1, got {permutations}")

    def estimate(v, C, gen):
        pay, alone = purse(budget)[0], torch.eye(C, dtype=torch.bool)
        pay(ends(C)[None])
        bounds = v(ends(C))
        span = (bounds[1] - bounds[0]).abs()
        if span <= eps_round * bounds[0].abs():
            return torch.zeros(C, dtype=torch.float64), None
        pay(alone[None])
        walk_by = partial(walk, v, bounds, eps_inside * span, pay)
        square, levels = walk_by(guided(gen, v(alone)) if balance else drawn(gen), C)
        if square.shape[1] < C:
            return (by_position(square, levels).sum(dim=1) + shared_rest(square, bounds[1] - levels[:, -1])) / C, None
        squares, orders_gains = [by_position(square, levels)], gains(square, levels)
        while len(orders_gains) < permutations and not settled(orders_gains, change):
            square, levels = walk_by(drawn(gen), C)
            squares.append(by_position(square, levels))
            if square.shape[1] < C:
                break
            orders_gains = torch.cat([orders_gains, gains(square, levels)])
        return mean_of_squares(squares), None

    def notes(facts):
        if "change" in facts.given and permutations <= LEAST:
            yield (f"no effect of change: it is asked after {LEAST} orders, and there are "
                   f"permutations={permutations}")

    return contribution(of, estimate, affordable(budget, lambda C: C + 2), notes)


def walk(v, bounds, rest, pay, costs, C):
    """``(square (C, k), levels (C, k + 1))``: a Latin square of orders, a lane a row, and the utilities of those who
    joined, for as many positions k as ``pay`` allows; the last value where a lane is closer than ``rest`` to the end of
    ``bounds``. Clients are assigned to lanes position by position, at least ``costs(square, levels) (C, C)``."""
    square, levels = torch.empty(C, 0, dtype=torch.int64), bounds[0].repeat(C, 1)
    joined, alive = torch.zeros(C, C, dtype=torch.bool), torch.ones(C, dtype=torch.bool)
    for _ in range(C):
        players = assigned(costs(square, levels), joined)
        joined = joined.index_put((torch.arange(C), players), torch.tensor(True))
        level = levels[:, -1].clone()
        alive &= (bounds[1] - level).abs() >= rest
        if alive.any():
            if not pay(joined[None, alive]):
                break
            level[alive] = v(joined[alive])
        square, levels = torch.cat([square, players[:, None]], dim=1), torch.cat([levels, level[:, None]], dim=1)
    return square, levels


def assigned(cost, joined):
    """``(C,) int64``: the player of each lane, at least total ``cost (C, C)``, none that ``joined (C, C)`` already.
    That always goes: a player is free in as many lanes as a lane has players free."""
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(torch.where(joined, torch.inf, cost).numpy())[1])


def drawn(gen):
    """Costs that make a random square."""
    return lambda square, levels: torch.from_numpy(gen.random((len(square), len(square))))


def guided(gen, quality):
    """Costs of a square whose coalitions have nearly the mean of ``quality (C,)``, and where who joined high levels,
    for their size, joins low ones next. Both in standard deviations; ties are drawn."""
    q = quality - quality.mean()
    q = q / q.std(correction=0).clamp(min=1e-300)

    def costs(square, levels):
        k = square.shape[1] + 1
        above = (levels - levels.mean(dim=0)) / torch.arange(1, k + 1)      # what company does to a gain falls as 1 / k
        met = above[:, :-1].gather(0, square.argsort(dim=0)).sum(dim=1)      # (C,) by player
        unit = above[:, -1].std(correction=0) + 1e-12 * levels.abs().max() + 1e-300
        even = (q[square].sum(dim=1)[:, None] + q).abs() / k
        made_up = (met + above[:, -1:]).abs() / unit if k > 1 else 0.0
        return even + 0.5 * made_up + 0.02 * torch.from_numpy(gen.random((len(q), len(q))))

    return costs


def by_position(square, levels):
    """``(C, k)``: the gain of each player at each of the positions of ``square (C, k)``."""
    return levels.diff(dim=1).gather(0, square.argsort(dim=0))


def shared_rest(square, rest):
    """``(C,)``: by player, the sum of its equal shares in the ``rest (C,)`` of the lanes that it is not in."""
    C, k = square.shape
    outside = torch.ones(C, C, dtype=torch.float64).scatter(1, square, 0.0)
    return rest @ outside / (C - k)


def mean_of_squares(squares):
    """``phi (C,)``: the mean over positions of the mean over the ``squares (C, k)`` that reached them; all but the last
    reached all."""
    *full, last = squares
    k = last.shape[1]
    total = sum(full, torch.zeros(len(last), len(last), dtype=torch.float64))
    total[:, :k] += last
    number = torch.full((len(last),), float(len(full)), dtype=torch.float64)
    number[:k] += 1
    return (total / number).mean(dim=1)


def settled(orders_gains, change):
    """Whether the mean of ``orders_gains (m, C)`` was still over the last orders."""
    m = len(orders_gains)
    if m < LEAST:
        return False
    means = (orders_gains.cumsum(dim=0) / torch.arange(1, m + 1, dtype=torch.float64)[:, None])[-LAST - 1:]
    moved = (means[:-1] - means[-1]).abs() / means[-1].abs().clamp(min=1e-12)
    return bool(moved.mean(dim=1).max() < change)
