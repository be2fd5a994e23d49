"""GTG-Shapley: guided truncation (Liu et al., ACM TIST 2022, arXiv 2109.02053).

    phi_n = mean over guided orders of v(those before n, and n) - v(those before n)

with the paper's four rules:

* between rounds: if ``|v(all) - v(nobody)| <= eps_round |v(nobody)|``, everybody scores 0, at 2
  utilities;
* within an order: it is left, with gains of 0 for all clients outside, once
  ``|v(all) - v(members)| < eps_inside |v(all) - v(nobody)|``;
* guided sampling: every client is at every position equally often;
* the end: ``mean over clients of |phi_n - phi_n of j orders ago| / |phi_n| < change`` for the last
  10 orders, after at least 30 (its program's least), or ``permutations`` orders, in whole squares
  of them.

Departures, and the paper's open points: thresholds are shares, not absolute. Guided are all
positions: orders come as Latin squares of C, each client once at each position. They advance side
by side, one position a batch of utilities. In the first square (``balance``) the players of a
position are chosen as it goes: a client's gains then stem from company typical of its size, not
from chance. The mean of ``v({n})`` over the members stays close to the cohort's mean, and after
good company a client is sent to bad. Further squares are drawn at random: more of them lead to the
exact value.

``budget`` limits distinct coalitions, nobody and everybody included (0: no limit). It is spent
evenly: a position is evaluated for all clients or for none. Beyond the last paid position of the
first square, the clients outside an order share equally in the rest of the way to v(all); later
squares add to the positions they reached.

Costs 2 + C utilities at least, C - 1 an order at most. No standard errors: the orders of a
square are not independent. Blind spots: those of the exact value; and with small budgets the
clients' worth to large coalitions. Sees: the updates, the server's own samples.
"""

from functools import partial

import torch

from fedmpi.methods.contribution.game import (Of, affordable, check_budget, contribution, ends,
                                              gains, purse)

# Orders over which the mean must be still.
LAST = 10
# Orders before that is asked.
LEAST = 30


def gtg_shapley(of: Of = "loss", eps_round: float = 1e-4, eps_inside: float = 0.01,
                balance: bool = True, change: float = 0.05, permutations: int = 200,
                budget: int = 0):
    """Mean gain over guided orders of joining, each left where the rest is small.

    Paper: Liu et al. 2022, "GTG-Shapley: Efficient and Accurate Participant Contribution
        Evaluation in Federated Learning", arXiv 2109.02053.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    Example: fedmpi train --contribution gtg-shapley:budget=100
    """
    check_budget(budget)
    if min(eps_round, eps_inside) < 0:
        raise ValueError("eps_round and eps_inside must be >= 0, got "
                         f"{eps_round} and {eps_inside}")
    if permutations < 1:
        raise ValueError(f"permutations must be >= 1, got {permutations}")

    def estimate(v, C, gen):
        """The value (C,) without standard errors."""
        pay, _ = purse(budget)
        pay(ends(C)[None])
        bounds = v(ends(C))
        span = (bounds[1] - bounds[0]).abs()
        # The rule between rounds.
        if span <= eps_round * bounds[0].abs():
            return torch.zeros(C, dtype=torch.float64), None
        alone = torch.eye(C, dtype=torch.bool)
        pay(alone[None])
        costs = drawn(gen)
        if balance:
            costs = guided(gen, v(alone))
        walk_by = partial(walk, v, bounds, eps_inside * span, pay)
        square, levels = walk_by(costs, C)
        num_positions = square.shape[1]
        if num_positions < C:
            return of_cut_square(square, levels, bounds[1]), None
        squares = all_squares(square, levels, walk_by, gen)
        return mean_of_squares(squares), None

    def all_squares(square, levels, walk_by, gen):
        """``[(C, k) gains by player and position]`` of the first square and all further ones."""
        C = len(square)
        squares = [by_position(square, levels)]
        orders_gains = gains(square, levels)
        while len(orders_gains) < permutations and not settled(orders_gains, change):
            square, levels = walk_by(drawn(gen), C)
            squares.append(by_position(square, levels))
            # The budget is spent.
            if square.shape[1] < C:
                break
            orders_gains = torch.cat([orders_gains, gains(square, levels)])
        return squares

    def notes(facts):
        if "change" in facts.user_options and permutations <= LEAST:
            yield (f"no effect of change: it is asked after {LEAST} orders, and there are "
                   f"permutations={permutations}")

    def least(C):
        """How many coalitions the estimate takes: nobody, everybody, and each client alone."""
        return C + 2

    return contribution(of, estimate, affordable(budget, least), notes)


# --- squares of orders ---

def walk(v, bounds, rest, pay, costs, C):
    """``(square (C, k), levels (C, k + 1))``: a Latin square of orders, a lane a row.

    ``levels`` are the utilities of the members at each of the k positions that ``pay`` allows. A
    lane closer than ``rest`` to the end of ``bounds`` keeps its last value. Clients are assigned
    to lanes position by position, at least ``costs(square, levels) (C, C)``."""
    square = torch.empty(C, 0, dtype=torch.int64)
    levels = bounds[0].repeat(C, 1)
    joined = torch.zeros(C, C, dtype=torch.bool)
    alive = torch.ones(C, dtype=torch.bool)
    lanes = torch.arange(C)
    for _ in range(C):
        players = assigned(costs(square, levels), joined)
        joined = joined.index_put((lanes, players), torch.tensor(True))
        level = levels[:, -1].clone()
        # An order that is left stays left.
        alive &= (bounds[1] - level).abs() >= rest
        if alive.any():
            coalitions = joined[alive]
            if not pay(coalitions[None]):
                break
            level[alive] = v(coalitions)
        square = torch.column_stack([square, players])
        levels = torch.column_stack([levels, level])
    return square, levels


def assigned(cost, joined):
    """``(C,) int64``: the player of each lane, at least total ``cost (C, C)``, none twice.

    ``joined (C, C) bool`` are the members of each lane. There always is an assignment: a player is
    free in as many lanes as a lane has players free."""
    from scipy.optimize import linear_sum_assignment

    allowed = torch.where(joined, torch.inf, cost)
    _, players = linear_sum_assignment(allowed.numpy())
    return torch.from_numpy(players)


def drawn(gen):
    """Costs that make a random square."""

    def costs(square, levels):
        C = len(square)
        return torch.from_numpy(gen.random((C, C)))

    return costs


def guided(gen, quality):
    """Costs of a square whose coalitions have nearly the mean of ``quality (C,)``.

    A client that joined high levels, for their size, joins low ones next. Both in standard
    deviations; ties are drawn."""
    C = len(quality)
    q = quality - quality.mean()
    # Clients of one quality deviate by 0.
    deviation = q.std(correction=0).clamp(min=1e-300)
    q = q / deviation

    def costs(square, levels):
        """``(C, C)`` by lane and player, for the position after those of ``square (C, k)``."""
        k = square.shape[1] + 1
        members = q[square].sum(dim=1)
        joined = members[:, None] + q
        even = joined.abs() / k
        company = made_up(square, levels)
        ties = torch.from_numpy(gen.random((C, C)))
        return even + 0.5 * company + 0.02 * ties

    return costs


def made_up(square, levels):
    """``(C, C)`` by lane and player: the company so far and the next, for their size; 0 at first.

    In standard deviations of the lanes' present company."""
    k = square.shape[1] + 1
    if k == 1:
        return 0.0
    # The effect of company on a gain falls as 1 / k.
    sizes = torch.arange(1, k + 1)
    above = (levels - levels.mean(dim=0)) / sizes
    places = square.argsort(dim=0)
    met = above[:, :-1].gather(0, places)
    present = above[:, -1:]
    company = met.sum(dim=1) + present
    # Lanes of equal levels differ by rounding alone.
    rounding = 1e-12 * levels.abs().max() + 1e-300
    unit = present.std(correction=0) + rounding
    return company.abs() / unit


# --- scores ---

def by_position(square, levels):
    """``(C, k)``: the gain of each player at each of the positions of ``square (C, k)``."""
    places = square.argsort(dim=0)
    return levels.diff(dim=1).gather(0, places)


def of_cut_square(square, levels, end):
    """``phi (C,)`` of one square of k < C positions: gains, and shares in the rest to ``end``."""
    C = len(square)
    reached = by_position(square, levels).sum(dim=1)
    rest = end - levels[:, -1]
    return (reached + shared_rest(square, rest)) / C


def shared_rest(square, rest):
    """``(C,)``: by player, its equal shares in the ``rest (C,)`` of all lanes without it."""
    C, k = square.shape
    everywhere = torch.ones(C, C, dtype=torch.float64)
    outside = everywhere.scatter(1, square, 0.0)
    return rest @ outside / (C - k)


def mean_of_squares(squares):
    """``phi (C,)``: the mean over positions of the mean over the ``squares (C, k)`` there.

    All squares but the last reach all positions."""
    *full, last = squares
    C, k = last.shape
    nothing = torch.zeros(C, C, dtype=torch.float64)
    total = sum(full, nothing)
    total[:, :k] += last
    number = torch.full((C,), len(full), dtype=torch.float64)
    number[:k] += 1
    means = total / number
    return means.mean(dim=1)


def settled(orders_gains, change):
    """Whether the mean of ``orders_gains (m, C)`` was still over the last orders."""
    m = len(orders_gains)
    if m < LEAST:
        return False
    numbers = torch.arange(1, m + 1, dtype=torch.float64)
    means = orders_gains.cumsum(dim=0) / numbers[:, None]
    now = means[-1]
    before = means[-LAST - 1: -1]
    size = now.abs().clamp(min=1e-12)
    moved = (before - now).abs() / size
    return bool(moved.mean(dim=1).max() < change)
