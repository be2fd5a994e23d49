"""Truncated Monte-Carlo Shapley value (Ghorbani and Zou, ICML 2019, arXiv 1904.02868).

    phi_n = mean over drawn orders of v(those before n, and n) - v(those before n)

with gains of 0 after an order is left: once ``|v(all) - v(members)| < tolerance |v(all) -
v(nobody)|`` for the members so far. Sampling stops when

    mean over clients of |phi_n - phi_n of ``window`` orders ago| / |phi_n| < ``change``,

at ``permutations`` orders, or when ``budget`` distinct coalitions (0: no limit) are spent. The
paper's tolerance is absolute, from the noise of v(all); here it is a share, which means the same
in every round.

``lanes`` orders advance side by side, one position a batch of utilities; left orders drop out. No
more start than the budget surely pays for, at the end one; an interrupted order does not count.
Costs up to C - 1 utilities an order, and 2. ``error`` is the standard error over orders; it does
not know of the bias of truncation. Blind spots: those of the exact value; and gains after an order
came close to v(all) by chance. Sees: the updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, affordable, check_budget, contribution,
                                              draw_orders, ends, gains, mean_and_error, prefixes,
                                              purse)


def tmc_shapley(of: Of = "loss", tolerance: float = 0.01, permutations: int = 500,
                window: int = 100, change: float = 0.05, lanes: int = 20, budget: int = 0):
    """Mean gain over random orders of joining, each left where the rest is small.

    Paper: Ghorbani and Zou 2019, "Data Shapley: Equitable Valuation of Data for Machine Learning",
        arXiv 1904.02868.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    check_budget(budget)
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}: a share of v(all) - v(nobody)")
    if min(permutations, window, lanes) < 1:
        raise ValueError("permutations, window and lanes must be >= 1, got "
                         f"{permutations}, {window} and {lanes}")

    def estimate(v, C, gen):
        """The mean (C,) of all orders, and its standard errors."""
        pay, left = purse(budget)
        pay(ends(C)[None])
        bounds = v(ends(C))
        span = (bounds[1] - bounds[0]).abs()
        rest = tolerance * span
        samples = torch.empty(0, C, dtype=torch.float64)
        while len(samples) < permutations and not settled(samples, window, change):
            # An order takes C - 1 new coalitions at most; its ends are paid.
            price = max(1, C - 1)
            affordable_orders = max(1, left() // price)
            wanted = min(lanes, permutations - len(samples), affordable_orders)
            orders = draw_orders(gen, wanted, C)
            levels, whole = walk(v, orders, bounds, rest, pay)
            new = gains(orders, levels)[:whole]
            samples = torch.cat([samples, new])
            # The budget is spent.
            if whole < wanted:
                break
        return mean_and_error(samples)

    def notes(facts):
        if "change" in facts.user_options and permutations <= window:
            yield (f"no effect of change: it is asked after window={window} orders, and there are "
                   f"permutations={permutations}")

    def least(C):
        """How many coalitions one order takes."""
        return C + 1

    return contribution(of, estimate, affordable(budget, least), notes)


def walk(v, orders, bounds, rest, pay):
    """``(levels (L, C + 1), whole)`` along ``orders (L, C)``, a lane each.

    ``levels`` are the utilities of the members at each position. A lane closer than ``rest`` to
    the end of ``bounds`` keeps its last value. ``whole`` counts the lanes that came to their end
    before the first one refused by ``pay``."""
    L, C = orders.shape
    coalitions = prefixes(orders)
    alive = torch.ones(L, dtype=torch.bool)
    whole = L
    levels = bounds[0].repeat(L, C + 1)
    for k in range(1, C + 1):
        last = levels[:, k - 1]
        alive &= (bounds[1] - last).abs() >= rest
        lanes = alive.nonzero().flatten()
        paid = pay(coalitions[lanes, None, k])
        if paid < len(lanes):
            refused = lanes[paid]
            whole = min(whole, int(refused))
            alive[refused:] = False
            lanes = lanes[:paid]
        levels[:, k] = last
        if paid:
            members = coalitions[lanes, k]
            levels[lanes, k] = v(members)
    return levels, whole


def settled(samples, window, change):
    """Whether the mean of ``samples (m, C)`` moved less than ``change`` over ``window`` rows."""
    if len(samples) <= window:
        return False
    now = samples.mean(dim=0)
    before = samples[:-window].mean(dim=0)
    size = now.abs().clamp(min=1e-12)
    relative = (now - before).abs() / size
    return bool(relative.mean() < change)
