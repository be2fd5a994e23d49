"""Quantity skew by log-normal sizes: the same label mix, sizes over orders of magnitude.

    n_i / total = exp(sigma z_i) / sum_j exp(sigma z_j),   z ~ N(0, 1)
"""

import math

from fedmpi.methods.partition.deal import feasible, lognormal_sizes, positive, shards_of, sized


def lognormal(sigma: float = 1.0, min_size: int = 10):
    """Log-normal sizes, at least ``min_size``, labels mixed alike.

    Returns ``(labels, clients, gen) -> index arrays``.

    Paper: none of its own: log-normal sizes.
    """
    positive(min_size=min_size)
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma must be >= 0 and finite, got {sigma}")

    def partition(labels, clients, gen):
        feasible(len(labels), clients, min_size)
        sizes = lognormal_sizes(len(labels), clients, sigma, gen)
        owner = sized(sizes, gen)
        return shards_of(owner, clients, min_size, gen)

    return partition
