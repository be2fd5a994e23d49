"""Exact Shapley value: the mean gain of a client's joining, over all orders of joining.

    phi_n = sum over S without n of |S|! (C - |S| - 1)! / C!  (v(S + n) - v(S))

Shapley 1953; for coalitions of updates instead of retraining, Song et al. 2019. The only value
that is efficient (sums to v(all) - v(nobody)), symmetric, linear and 0 for a client that never
matters. Costs 2^C utilities a round, in one batch: refused above ``limit`` clients. Blind spots:
those of v; a validation set without a class pays nobody for it. Sees: the updates, the server's
own samples.
"""

from fedmpi.methods.contribution.game import Of, at_most, check_limit, contribution, exact


def shapley(of: Of = "loss", limit: int = 16):
    """Mean gain over all orders of joining, from all coalitions.

    Paper: Song, Tong and Wei 2019, "Profit Allocation for Federated Learning", IEEE Big Data 2019;
        Shapley 1953, "A Value for n-Person Games".
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    Example: fedmpi train --contribution shapley --clients 6
    """
    check_limit(limit)

    def estimate(v, C, gen):
        """The value (C,); exact, without errors."""
        return exact(v, C), None

    instead = "use gtg-shapley or shapley-mc, a smaller cohort or a larger limit"
    return contribution(of, estimate, at_most(limit, instead))
