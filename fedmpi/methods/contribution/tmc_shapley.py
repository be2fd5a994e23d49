"""Truncated Monte-Carlo Shapley value (Ghorbani and Zou, ICML 2019, arXiv 1904.02868).

Random orders of joining as in shapley-mc, but an order is left, with gains of 0 for those who have not joined, once
``|v(all) - v(those who joined)| < tolerance |v(all) - v(nobody)|``. Sampling stops when

    mean over clients of |phi_n - phi_n of ``window`` orders ago| / |phi_n| < ``change``,

at ``permutations`` orders, or where ``budget`` distinct coalitions (0: no limit) are spent. The paper's tolerance is
absolute, from the noise of v(all); here it is a share, which means the same in every round.

``lanes`` orders advance side by side, one position a batch of utilities; those that are left drop out. No more start
than the budget surely pays for, at the end one; if it is interrupted it does not count. Costs up to C - 1 utilities an
order, and 2. ``error`` is the standard error over orders; it does not know of the bias of truncation. Blind spots:
those of the exact value; and gains after an order came close to v(all) by chance. Sees: the updates, the server's own
samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, affordable, check_budget, contribution,
                                              draw_orders, ends, gains, mean_and_error, prefixes,
                                              purse)


def tmc_shapley(of: Of = "loss", tolerance: float = 0.01, permutations: int = 500, window: int = 100,
                change: float = 0.05, lanes: int = 20, budget: int = 0):
    """Mean gain over random orders of joining, each left where the rest is small.

    Paper: Ghorbani and Zou 2019, "Data Shapley: Equitable Valuation of Data for Machine Learning", arXiv 1904.02868.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    check_budget(budget)
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}: a share of v(all) - v(nobody)")
    if min(permutations, window, lanes) < 1:
        raise ValueError(f"permutations, window and lanes must be >= 1, got {permutations}, {window} and {lanes}")

    def estimate(v, C, gen):
        (pay, left), orders_gains = purse(budget), torch.empty(0, C, dtype=torch.float64)
        pay(ends(C)[None])
        bounds = v(ends(C))
        while len(orders_gains) < permutations and not settled(orders_gains, window, change):
            sure = max(1, left() // max(1, C - 1))
            orders = draw_orders(gen, min(lanes, permutations - len(orders_gains), sure), C)
            levels, whole = walk(v, orders, bounds, tolerance * (bounds[1] - bounds[0]).abs(), pay)
            orders_gains = torch.cat([orders_gains, gains(orders, levels)[:whole]])
            if whole < len(orders):
                break
        return mean_and_error(orders_gains)

    def notes(facts):
        if "change" in facts.given and permutations <= window:
            yield (f"no effect of change: it is asked after window={window} orders, and there are "
                   f"permutations={permutations}")

    return contribution(of, estimate, affordable(budget, lambda C: C + 1), notes)


def walk(v, orders, bounds, rest, pay):
    """``(levels (L, C + 1), whole)`` along ``orders (L, C)``: utilities of those who joined, the last value where a
    lane is closer than ``rest`` to the end of ``bounds``; and how many lanes came to their end before the first one
    that ``pay`` refused."""
    L, C = orders.shape
    coalitions, alive, whole = prefixes(orders), torch.ones(L, dtype=torch.bool), L
    levels = bounds[0].repeat(L, C + 1)
    for k in range(1, C + 1):
        alive &= (bounds[1] - levels[:, k - 1]).abs() >= rest
        lanes = alive.nonzero().flatten()
        paid = pay(coalitions[lanes, None, k])
        if paid < len(lanes):
            whole = min(whole, int(lanes[paid]))
            alive[lanes[paid]:] = False
        levels[:, k] = levels[:, k - 1]
        if paid:
            levels[lanes[:paid], k] = v(coalitions[lanes[:paid], k])
    return levels, whole


def settled(orders_gains, window, change):
    """Whether the mean of ``orders_gains (m, C)`` moved less than ``change`` over the last ``window`` rows."""
    if len(orders_gains) <= window:
        return False
    now, before = orders_gains.mean(dim=0), orders_gains[:-window].mean(dim=0)
    return bool(((now - before).abs() / now.abs().clamp(min=1e-12)).mean() < change)
