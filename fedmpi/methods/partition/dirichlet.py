"""Label skew by Dirichlet draws, in the two variants in circulation; a smaller ``beta`` skews more.

``by="class"`` (A; 2102.02079): for each class p ~ Dir(beta 1_N) over the clients; sizes vary a
lot. With ``cap`` a client with total/N samples or more gets a share of 0, as in NIID-Bench;
``cap=false,min_size=1`` is the split of the thesis's and FedDST's programs (2112.09824), with
some tiny clients.

``by="client"`` (B; Hsu 2019, 2208.02507): for each client, in random order, p ~ Dir(beta 1_K)
over the classes; sizes differ by at most 1, or with ``sigma`` > 0 are log-normal: label and
quantity skew, each of its own strength. An empty class is left out and p is normalised again.

NIID-Bench draws anew until everybody has ``min_size`` samples; here there is one draw, and small
clients get random samples of the largest, so it always ends.
"""

import math
from typing import Literal

import numpy as np

from fedmpi.core.effect import needs
from fedmpi.methods.partition.deal import (by_class, dealt, feasible, lognormal_sizes, positive,
                                           proportions, shards_of, split)


@needs(cap="by=class", sigma="by=client")
def dirichlet(beta: float = 0.5, min_size: int = 10, by: Literal["class", "client"] = "class",
              cap: bool = True, sigma: float = 0.0):
    """Labels skewed by Dirichlet draws, at least ``min_size`` samples each.

    Returns ``(labels, clients, gen) -> index arrays``.

    Paper: Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for
        Federated Visual Classification", arXiv 1909.06335; Li et al. 2022, "Federated Learning
        on Non-IID Data Silos: An Experimental Study", arXiv 2102.02079.
    """
    positive(beta=beta, min_size=min_size)
    if by not in ("class", "client"):
        raise ValueError(f"by must be class or client, got {by!r}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be >= 0 and finite, got {sigma}")

    def table_of(pool_sizes, clients, gen):
        if by == "class":
            return _over_clients(pool_sizes, clients, beta, gen, cap)
        sizes = lognormal_sizes(sum(pool_sizes), clients, sigma, gen)
        return _over_classes(pool_sizes, sizes, beta, gen)

    def partition(labels, clients, gen):
        feasible(len(labels), clients, min_size)
        pools = by_class(labels, gen)
        pool_sizes = [len(pool) for pool in pools]
        table = table_of(pool_sizes, clients, gen)
        owner = dealt(pools, table)
        return shards_of(owner, clients, min_size, gen)

    return partition


def _over_clients(pool_sizes, clients, beta, gen, cap):
    """``table (N, K) int64`` of variant A."""
    table = np.zeros((clients, len(pool_sizes)), np.int64)
    fair = sum(pool_sizes) / clients
    for k, size in enumerate(pool_sizes):
        # Never empty: less than the total is dealt.
        is_open = (table.sum(1) < fair) | (not cap)
        drawn = proportions(beta, clients, gen)
        shares = _or_else(drawn * is_open, is_open)
        table[:, k] = _split_open(size, shares, is_open)
    return table


def _or_else(weights, fallback):
    """``weights`` divided by their sum, or for a sum of 0 ``fallback`` divided by its own."""
    if not weights.sum() > 0:
        weights = fallback.astype(np.float64)
    return weights / weights.sum()


def _split_open(size, shares, is_open):
    """``split`` among the open clients only, so that no rounding falls on a closed one."""
    counts = np.zeros(len(shares), np.int64)
    counts[is_open] = split(size, shares[is_open])
    return counts


def _over_classes(pool_sizes, sizes, beta, gen):
    """``table (N, K) int64`` of variant B, client n holding ``sizes[n]``."""
    left = np.array(pool_sizes, np.int64)
    table = np.zeros((len(sizes), len(left)), np.int64)
    for n in gen.permutation(len(sizes)):
        shares = proportions(beta, len(left), gen)
        table[n] = _drawn(sizes[n], shares, left, gen)
        left -= table[n]
    return table


def _drawn(size, shares, left, gen):
    """``counts (K,)`` that sum to ``size``, about proportional to ``shares``, at most ``left``."""
    counts = np.zeros_like(left)
    # Each turn ends it or empties a class: at most K + 1 turns.
    while counts.sum() < size:
        rest = left - counts
        weights = _or_else(shares * (rest > 0), rest)
        missing = size - counts.sum()
        draw = gen.multinomial(missing, weights)
        counts += np.minimum(draw, rest)
    return counts
