"""Banzhaf value: the mean gain of a client's joining, over all coalitions of the others (Wang and Jia, AISTATS 2023,
arXiv 2205.15466).

    phi_n = mean over S without n of v(S + n) - v(S) = mean of v over S with n - mean of v over S without n

Of all semivalues the one whose ranking noise in v disturbs least; it does not sum to v(all). Up to ``limit`` clients it
is exact, at 2^C utilities a round. Above, the maximum-sample-reuse estimator: ``samples`` coalitions, each client in
with probability 1/2, and all of them serve all clients. Here they come in pairs, a coalition and the rest of the
cohort: every client is in just one of the two, and what does not depend on who is in cancels. ``error`` is the standard
error over pairs.

Blind spots: those of v; nearly all weight is on coalitions of about half the cohort. Sees: the updates, the server's
own samples.
"""

import torch

from fedmpi.methods.contribution.game import Of, check_limit, contribution, mean_and_error, powerset


def banzhaf(of: Of = "loss", limit: int = 8, samples: int = 256):
    """Mean gain over all coalitions.

    Paper: Wang and Jia 2023, "Data Banzhaf: A Robust Data Valuation Framework for Machine Learning", arXiv 2205.15466.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    check_limit(limit)
    if samples < 4:
        raise ValueError(f"samples must be >= 4, got {samples}: errors are estimated from pairs of them")

    def estimate(v, C, gen):
        if C <= limit:
            coalitions = powerset(C)
            utilities = v(coalitions)
            return (utilities - utilities[0]) @ signs(coalitions) / 2 ** (C - 1), None
        drawn = torch.from_numpy(gen.random((samples // 2, C)) < 0.5)
        inside, outside = v(torch.cat([drawn, ~drawn])).chunk(2)
        return mean_and_error(signs(drawn) * (inside - outside)[:, None])

    def notes(facts):
        if "samples" in facts.given and facts.cohort <= limit:
            yield (f"no effect of samples: up to limit={limit} clients all coalitions are taken, and here are "
                   f"{facts.cohort}")

    return contribution(of, estimate, notes=notes)


def signs(coalitions):
    """1 where a client is in, -1 where not, float64."""
    return coalitions.double() * 2 - 1
