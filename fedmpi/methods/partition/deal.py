"""The owner of every sample, as one vector: shared by all partitions.

``owner (N,) int64`` names the client of every sample. A partition makes an owner vector; here
it is checked, repaired if a client has too little, and turned into index lists in random order.
"""

import math

import numpy as np

# Beyond it float64 overflows in a product with a normal number.
MOST_SIGMA = 1e300
# Above it all shares of a Dirichlet draw are equal to 6 digits.
MOST_BETA = 1e12


def feasible(total, clients, min_size):
    """Raise ``ValueError`` when ``total`` samples cannot give each client at least ``min_size``."""
    if clients < 1:
        raise ValueError(f"clients must be >= 1, got {clients}")
    needed = clients * min_size
    if total < needed:
        raise ValueError(f"{total} samples cannot give {clients} clients at least {min_size} each "
                         f"(that takes {needed}); use fewer clients or ask for less")


def positive(**options):
    """Raise ``ValueError`` for the first option that is not a finite number > 0."""
    for name, value in options.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be > 0 and finite, got {value}")


def lists(owner, clients, gen):
    """``clients`` int64 index arrays, each in random order."""
    order = _shuffled_by(owner, gen)
    counts = np.bincount(owner, minlength=clients)
    ends = np.cumsum(counts)[:-1]
    return [part.copy() for part in np.split(order, ends)]


def _shuffled_by(keys, gen):
    """(N,) int64: the places of ``keys (N,)`` sorted by key, equal keys in random order."""
    shuffled = gen.permutation(len(keys))
    order = np.argsort(keys[shuffled], kind="stable")
    return shuffled[order]


def by_class(labels, gen):
    """A list of index arrays, one per class in the data, each in random order.

    ValueError for data without classes.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError("it deals by class, and these data have no classes; "
                         "take iid, quantity or lognormal")
    order = _shuffled_by(labels, gen)
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, starts)


def dealt(pools, table):
    """``owner (N,)``: client n gets ``table[n, k]`` samples of ``pools[k]``.

    Columns of ``table`` sum to the sizes of the pools.
    """
    owner = np.empty(sum(map(len, pools)), np.int64)
    clients = np.arange(len(table))
    for k, members in enumerate(pools):
        counts = table[:, k]
        owner[members] = np.repeat(clients, counts)
    return owner


def sized(sizes, gen):
    """``owner (sum of sizes,)``: random samples, ``sizes[n]`` for client n."""
    clients = np.arange(len(sizes))
    return gen.permutation(np.repeat(clients, sizes))


def split(total, shares):
    """``sizes (N,) int64`` that sum to ``total``: the cumulated ``shares`` (sum 1), rounded."""
    ends = np.rint(np.cumsum(shares) * total).astype(np.int64)
    ends = ends.clip(0, total)
    # The sum of the shares may be a little off 1.
    ends[-1] = total
    return np.diff(ends, prepend=0)


def lognormal_sizes(total, clients, sigma, gen):
    """``sizes (N,) int64`` that sum to ``total``, log-normal of deviation ``sigma``.

    Equal to within 1, and without a draw, if sigma is 0.
    """
    if not sigma:
        share, rest = divmod(total, clients)
        gets_one_more = np.arange(clients) < rest
        return np.full(clients, share) + gets_one_more
    power = min(sigma, MOST_SIGMA) * gen.standard_normal(clients)
    # The largest is 1: a large sigma would overflow otherwise.
    shares = np.exp(power - power.max())
    return split(total, shares / shares.sum())


def proportions(beta, size, gen):
    """``(size,) float64`` of Dir(beta, ..., beta).

    One random corner if a tiny ``beta`` underflows.
    """
    strengths = np.full(size, min(beta, MOST_BETA))
    shares = gen.dirichlet(strengths)
    total = shares.sum()
    # Drawn even if unused, so that the generator goes on alike.
    corner = gen.integers(size)
    if np.isfinite(total) and total > 0:
        return shares / total
    return np.eye(size)[corner]


def shards_of(owner, clients, min_size, gen):
    """``clients`` int64 index arrays, each of ``min_size`` samples or more in random order."""
    repaired = topped_up(owner, clients, min_size, gen)
    return lists(repaired, clients, gen)


def topped_up(owner, clients, min_size, gen):
    """``owner`` with every client at ``min_size`` or more.

    Random samples move from the largest client at the time.
    """
    counts = np.bincount(owner, minlength=clients)
    need = np.maximum(min_size - counts, 0)
    if not need.any():
        return owner
    gifts = _gifts(counts, int(need.sum()))
    order = _shuffled_by(owner, gen)
    starts = np.cumsum(counts) - counts
    place_in_client = np.arange(len(owner)) - np.repeat(starts, counts)
    # The first samples of each giver, in its random order.
    gifts_of_owner = gifts[owner[order]]
    moved = order[place_in_client < gifts_of_owner]
    takers = np.repeat(np.arange(clients), need)
    repaired = owner.copy()
    repaired[moved] = gen.permutation(takers)
    return repaired


def _gifts(counts, total):
    """(N,): the gifts of each client, ``total`` samples in all, one by one from the largest."""
    level = _level(counts, total)
    gifts = np.maximum(counts - level, 0)
    # Several clients stand at the level, and not all need to give their last sample.
    surplus = gifts.sum() - total
    givers = np.flatnonzero(gifts)
    gifts[givers[:surplus]] -= 1
    return gifts


def _level(counts, total):
    """The highest level such that at least ``total`` samples stand above it."""
    # low suffices and high does not, at every turn.
    low, high = 0, int(counts.max())
    while high - low > 1:
        middle = (low + high) // 2
        above = np.maximum(counts - middle, 0).sum()
        if above >= total:
            low = middle
        else:
            high = middle
    return low
