"""Monte-Carlo Shapley value: mean gains over random orders of joining (FedSV, arXiv 2009.06192).

    phi_n = mean over drawn orders of v(those before n, and n) - v(those before n)

With ``antithetic`` an order and its reverse are one draw: if gains fall as coalitions grow, the
two errors cancel in part, at the same price. ``error`` is the standard error over independent
draws. Sampling stops when every client's interval of ``confidence`` (Student's t, each client
for itself) is at most ``tolerance |v(all) - v(nobody)|`` to either side, at ``permutations``
orders, or when ``budget`` distinct coalitions (0: no limit) do not pay for the next draw.
Looking after every batch makes the interval slightly optimistic.

Costs up to C - 1 utilities an order, and 2; ``batch`` orders are asked for at once. Blind
spots: those of the exact value. Sees: the updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, affordable, check_budget, contribution,
                                              draw_orders, gains, mean_and_error, prefixes, purse,
                                              with_reverses)


def shapley_mc(of: Of = "loss", permutations: int = 1000, batch: int = 32,
               confidence: float = 0.95, tolerance: float = 0.05, budget: int = 0,
               antithetic: bool = True):
    """Mean gain over random orders of joining, with confidence intervals.

    Paper: Wang et al. 2020, "A Principled Approach to Data Valuation for Federated Learning",
        arXiv 2009.06192.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    check_budget(budget)
    if permutations < 4 or batch < 2:
        raise ValueError("permutations must be >= 4 and batch >= 2, got "
                         f"{permutations} and {batch}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}: a share of v(all) - v(nobody)")
    # Two with antithetic.
    orders_a_draw = 1 + antithetic
    most_draws = permutations // orders_a_draw
    draws_a_batch = batch // orders_a_draw

    def estimate(v, C, gen):
        """The mean (C,) of all draws, and its standard errors."""
        pay, _ = purse(budget)
        draws = torch.empty(0, C, dtype=torch.float64)
        while len(draws) < most_draws:
            wanted = min(most_draws - len(draws), draws_a_batch)
            orders = draw_orders(gen, wanted, C)
            new = paid_gains(v, _groups(orders), pay)
            draws = torch.cat([draws, new])
            # The budget is spent.
            if len(new) < wanted:
                break
            # The gains of any order sum to v(all) - v(nobody).
            span = float(draws[0].sum().abs())
            if half_width(draws, confidence) <= tolerance * span:
                break
        return mean_and_error(draws)

    def _groups(orders):
        """``(draws, orders_a_draw, C)``: the orders of each draw."""
        if antithetic:
            return with_reverses(orders)
        return orders[:, None]

    def least(C):
        """How many coalitions the first draw takes."""
        if antithetic:
            return 2 * C
        return C + 1

    return contribution(of, estimate, affordable(budget, least))


def paid_gains(v, orders, pay):
    """``(paid, C) float64``: the mean gains of each draw of ``orders (draws, each, C)``.

    ``pay`` decides how many of the draws, from the first on, are evaluated."""
    coalitions = prefixes(orders)
    paid = pay(coalitions.flatten(1, 2))
    orders = orders[:paid]
    _, each, C = orders.shape
    asked = coalitions[:paid].reshape(-1, C)
    utilities = v(asked)
    levels = utilities.view(paid, each, C + 1)
    return gains(orders, levels).mean(dim=1)


def half_width(draws, confidence):
    """Half the widest confidence interval of the means of ``draws (m, C)``; inf for one draw."""
    from scipy.special import stdtrit

    _, error = mean_and_error(draws)
    if error is None:
        return float("inf")
    freedom = len(draws) - 1
    quantile = (1 + confidence) / 2
    return float(error.max()) * stdtrit(freedom, quantile)
