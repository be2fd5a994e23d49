"""Who owns which sample, as one vector: what all partitions share.

``owner (N,) int64`` names the client of every sample. A partition makes an owner vector; here
it is checked, repaired where a client has too little, and turned into index lists in random
order.
"""

import math

import numpy as np


def feasible(total, clients, min_size):
    """Raise ``ValueError`` when ``total`` samples cannot give each of ``clients`` at least
    ``min_size``."""
    if clients < 1:
        raise ValueError(f"clients must be >= 1, got {clients}")
    if total < clients * min_size:
        raise ValueError(f"{total} samples cannot give {clients} clients at least {min_size} each (that takes "
                         f"{clients * min_size}); use fewer clients or ask for less")


def positive(**options):
    """Raise ``ValueError`` for the first option that is not a finite number > 0."""
    for name, value in options.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be > 0 and finite, got {value}")


def lists(owner, clients, gen):
    """``clients`` int64 index arrays, each in random order."""
    shuffled = gen.permutation(len(owner))
    order = shuffled[np.argsort(owner[shuffled], kind="stable")]
    ends = np.cumsum(np.bincount(owner, minlength=clients))[:-1]
    return [part.copy() for part in np.split(order, ends)]


def by_class(labels, gen):
    """A list of index arrays, one per class that occurs, each in random order; ValueError where
    there are none."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError("it deals by class, and these data have no classes; take iid, quantity or lognormal")
    shuffled = gen.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def dealt(pools, table):
    """``owner (N,)``: client n gets ``table[n, k]`` samples of ``pools[k]``; rows of ``table``
    cover the pools."""
    owner = np.empty(sum(map(len, pools)), np.int64)
    for members, counts in zip(pools, table.T):
        owner[members] = np.repeat(np.arange(len(table)), counts)
    return owner


def sized(sizes, gen):
    """``owner (sum of sizes,)``: random samples, ``sizes[n]`` for client n."""
    return gen.permutation(np.repeat(np.arange(len(sizes)), sizes))


def split(total, shares):
    """``sizes (N,) int64`` that sum to ``total``: the cumulated ``shares`` (sum 1), rounded."""
    ends = np.rint(np.cumsum(shares) * total).astype(np.int64).clip(0, total)
    ends[-1] = total
    return np.diff(ends, prepend=0)


def lognormal_sizes(total, clients, sigma, gen):
    """``sizes (N,) int64`` that sum to ``total``, log-normal of deviation ``sigma``; equal to
    within 1, and nothing is drawn, where sigma is 0."""
    if not sigma:
        return np.full(clients, total // clients) + (np.arange(clients) < total % clients)
    power = min(sigma, 1e300) * gen.standard_normal(clients)    # beyond it float64 overflows
    shares = np.exp(power - power.max())
    return split(total, shares / shares.sum())


def proportions(beta, size, gen):
    """``(size,) float64`` of Dir(beta, ..., beta); one random corner where a tiny ``beta``
    underflows."""
    shares = gen.dirichlet(np.full(size, min(beta, 1e12)))    # above it all shares are equal to 6 digits
    total = shares.sum()
    corner = np.eye(size)[gen.integers(size)]
    return shares / total if np.isfinite(total) and total > 0 else corner


def topped_up(owner, clients, min_size, gen):
    """``owner`` with every client at ``min_size`` or more: random samples move from whoever is
    largest."""
    counts = np.bincount(owner, minlength=clients)
    need = np.maximum(min_size - counts, 0)
    if not need.any():
        return owner
    give = _gifts(counts, int(need.sum()))
    shuffled = gen.permutation(len(owner))
    order = shuffled[np.argsort(owner[shuffled], kind="stable")]
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)    # within its client
    moved = order[place < give[owner[order]]]
    repaired = owner.copy()
    repaired[moved] = gen.permutation(np.repeat(np.arange(clients), need))
    return repaired


def _gifts(counts, total):
    """How many samples each client gives, when ``total`` are taken one by one from the
    currently largest."""
    low, high = 0, int(counts.max())    # the highest level such that what stands above it suffices
    while high - low > 1:
        level = (low + high) // 2
        low, high = (level, high) if np.maximum(counts - level, 0).sum() >= total else (low, level)
    give = np.maximum(counts - low, 0)
    give[np.flatnonzero(give)[:give.sum() - total]] -= 1
    return give
