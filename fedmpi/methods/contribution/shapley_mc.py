"""Monte-Carlo Shapley value: mean gains over random orders of joining (FedSV, arXiv 2009.06192).

    phi_n = mean over drawn orders of v(those before n, and n) - v(those before n)

With ``antithetic`` an order and its reverse are one draw: where gains fall as coalitions grow the two errors cancel in
part, at the same price. ``error`` is the standard error over independent draws. Sampling stops when every client's
interval of ``confidence`` (Student's t, each client for itself) is at most ``tolerance |v(all) - v(nobody)|`` to either
side, at ``permutations`` orders, or where ``budget`` distinct coalitions (0: no limit) do not pay for the next draw.
Looking after every batch makes the interval slightly optimistic.

Costs up to C - 1 utilities an order, and 2; ``batch`` orders are asked for at once. Blind spots: those of the exact
value. Sees: the updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, affordable, check_budget, contribution,
                                              draw_orders, gains, mean_and_error, prefixes, purse)


def shapley_mc(of: Of = "loss", permutations: int = 1000, batch: int = 32, confidence: float = 0.95,
               tolerance: float = 0.05, budget: int = 0, antithetic: bool = True):
    """Mean gain over random orders of joining, with confidence intervals.

    Paper: Wang et al. 2020, "A Principled Approach to Data Valuation for Federated Learning", arXiv 2009.06192.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    check_budget(budget)
    if permutations < 4 or batch < 2:
        raise ValueError(f"permutations must be >= 4 and batch >= 2, got {permutations} and {batch}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}: a share of v(all) - v(nobody)")
    orders_each = 1 + antithetic

    def estimate(v, C, gen):
        pay, draws = purse(budget)[0], torch.empty(0, C, dtype=torch.float64)
        while (left := permutations // orders_each - len(draws)) > 0:
            orders = draw_orders(gen, min(left, batch // orders_each), C)
            orders = torch.stack([orders, orders.flip(1)][:orders_each], dim=1)          # (draws, orders_each, C)
            coalitions = prefixes(orders)
            paid = pay(coalitions.flatten(1, 2))
            levels = v(coalitions[:paid].reshape(-1, C)).view(paid, orders_each, C + 1)
            draws = torch.cat([draws, gains(orders[:paid], levels).mean(dim=1)])
            if paid < len(orders) or half_width(draws, confidence) <= tolerance * float(draws[0].sum().abs()):
                break
        return mean_and_error(draws)

    return contribution(of, estimate, affordable(budget, lambda C: C + 1 + antithetic * (C - 1)))


def half_width(draws, confidence):
    """Half the widest confidence interval of the means of ``draws (m, C)``."""
    from scipy.special import stdtrit

    _, error = mean_and_error(draws)
    return float("inf") if error is None else float(error.max()) * stdtrit(len(draws) - 1, (1 + confidence) / 2)
