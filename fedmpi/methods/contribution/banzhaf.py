"""Banzhaf value: the mean gain of a client's joining, over all coalitions of the others.

    phi_n = mean over S without n of v(S + n) - v(S)
          = mean of v over S with n - mean of v over S without n

Of all semivalues it is the one whose ranking noise in v disturbs least; it does not sum to v(all)
(Wang and Jia, AISTATS 2023, arXiv 2205.15466). Up to ``limit`` clients it is exact, at 2^C
utilities a round. Above, it is the maximum-sample-reuse estimator: ``samples`` coalitions, each
client in with probability 1/2, and all of them serve all clients. Here they come in pairs, a
coalition and the rest of the cohort: every client is in just one of the two, and the part of v
without dependence on members cancels. ``error`` is the standard error over pairs.

Blind spots: those of v; nearly all weight is on coalitions of about half the cohort. Sees: the
updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, check_limit, contribution, mean_and_error,
                                              powerset)


def banzhaf(of: Of = "loss", limit: int = 8, samples: int = 256):
    """Mean gain over all coalitions.

    Paper: Wang and Jia 2023, "Data Banzhaf: A Robust Data Valuation Framework for Machine
        Learning", arXiv 2205.15466.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    check_limit(limit)
    if samples < 4:
        raise ValueError(f"samples must be >= 4, got {samples}: errors are estimated from pairs of "
                         "them")

    def estimate(v, C, gen):
        """The value (C,), and its standard errors if it is sampled."""
        if C <= limit:
            return all_coalitions(v, C), None
        return from_pairs(v, C, samples // 2, gen)

    def notes(facts):
        # Small cohorts draw nothing.
        if "samples" in facts.user_options and facts.cohort <= limit:
            yield (f"no effect of samples: up to limit={limit} clients all coalitions are taken, "
                   f"and here are {facts.cohort}")

    return contribution(of, estimate, notes=notes)


def all_coalitions(v, C):
    """``(C,) float64``: the exact value of the game v."""
    coalitions = powerset(C)
    utilities = v(coalitions)
    gains = utilities - utilities[0]
    # A client's coalitions count 1, all others -1.
    return gains @ signs(coalitions) / 2 ** (C - 1)


def from_pairs(v, C, pairs, gen):
    """``(phi (C,), standard errors (C,))``, float64, from ``pairs`` of complements."""
    # Each client is in with probability 1/2.
    chance = gen.random((pairs, C))
    drawn = torch.from_numpy(chance < 0.5)
    both = torch.cat([drawn, ~drawn])
    inside, outside = v(both).chunk(2)
    differences = inside - outside
    return mean_and_error(signs(drawn) * differences[:, None])


def signs(coalitions):
    """float64: 1 for members, -1 for all others."""
    return coalitions.double() * 2 - 1
