"""C classes per client (2102.02079, NIID-Bench): client n owns class n mod K and C - 1 random
others.

    each class is split equally among its owners

NIID-Bench loses the samples of a class that nobody drew. Here such a class takes a place from
the class with most owners; where there are fewer places than classes (N C < K) the classes left
over go whole to the clients in turn. A client that would hold fewer than ``min_size`` samples
gets random ones of the largest.
"""

import numpy as np

from fedmpi.methods.partition.deal import by_class, dealt, feasible, lists, positive, topped_up


def classes(per_client: int = 2, min_size: int = 1):
    """``per_client`` classes a client, split equally.

    Returns ``(labels, clients, gen) -> index arrays``.

    Paper: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study",
        arXiv 2102.02079.
    """
    positive(per_client=per_client, min_size=min_size)

    def partition(labels, clients, gen):
        feasible(len(labels), clients, min_size)
        pools = by_class(labels, gen)
        if per_client > len(pools):
            raise ValueError(f"per_client must be at most the number of classes, {len(pools)}, got {per_client}")
        owns = _owned(_chosen(clients, len(pools), per_client, gen), gen)
        table = np.stack([_equal(len(pool), column) for pool, column in zip(pools, owns.T)], 1)
        return lists(topped_up(dealt(pools, table), clients, min_size, gen), clients, gen)

    return partition


def _chosen(clients, num_classes, per_client, gen):
    """``owns (N, K) bool``: class n mod K and ``per_client - 1`` random others in row n."""
    first = np.arange(clients) % num_classes
    score = gen.random((clients, num_classes))
    score[np.arange(clients), first] = -1
    owns = np.zeros((clients, num_classes), bool)
    np.put_along_axis(owns, np.argsort(score, 1)[:, :per_client], True, 1)
    return owns


def _owned(owns, gen):
    """``owns`` with an owner for every class: places move from the class with most owners,
    while it has two."""
    owns = owns.copy()
    for n, k in enumerate(np.flatnonzero(~owns.any(0))):
        most = owns.sum(0).argmax()
        if owns[:, most].sum() < 2:
            owns[n % len(owns), k] = True
            continue
        client = gen.choice(np.flatnonzero(owns[:, most]))
        owns[client, [most, k]] = False, True
    return owns


def _equal(size, owns):
    """``counts (N,) int64``: ``size`` over the owners, differing by at most 1."""
    counts = np.zeros(len(owns), np.int64)
    owners = np.flatnonzero(owns)
    counts[owners] = size // len(owners)
    counts[owners[:size % len(owners)]] += 1
    return counts
