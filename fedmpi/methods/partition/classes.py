"""C classes per client (2102.02079, NIID-Bench): client n owns class n mod K and C - 1 others.

    the others are random;   each class is split equally among its owners

NIID-Bench loses the samples of an undrawn class. Here such a class takes a place from the class
with most owners; with fewer places than classes (N C < K) the classes left over go whole to the
clients in turn. A client with fewer than ``min_size`` samples gets random ones of the largest.
"""

import numpy as np

from fedmpi.methods.partition.deal import by_class, dealt, feasible, positive, shards_of


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
        num_classes = len(pools)
        if per_client > num_classes:
            raise ValueError(f"per_client must be at most the number of classes, {num_classes}, "
                             f"got {per_client}")
        chosen = _chosen(clients, num_classes, per_client, gen)
        owns = _owned(chosen, gen)
        columns = [_equal(len(pool), owners) for pool, owners in zip(pools, owns.T)]
        owner = dealt(pools, np.stack(columns, 1))
        return shards_of(owner, clients, min_size, gen)

    return partition


def _chosen(clients, num_classes, per_client, gen):
    """``owns (N, K) bool``: class n mod K and ``per_client - 1`` random others in row n."""
    row = np.arange(clients)
    score = gen.random((clients, num_classes))
    # The client's own class comes before all others.
    score[row, row % num_classes] = -1
    lowest = np.argsort(score, 1)[:, :per_client]
    owns = np.zeros((clients, num_classes), bool)
    np.put_along_axis(owns, lowest, True, 1)
    return owns


def _owned(owns, gen):
    """``owns (N, K)`` with an owner for every class.

    Places move from the class with most owners, while it has two.
    """
    owns = owns.copy()
    unowned = np.flatnonzero(~owns.any(0))
    for n, k in enumerate(unowned):
        num_owners = owns.sum(0)
        most = num_owners.argmax()
        # No class can spare an owner: a client gets a class more.
        if num_owners[most] < 2:
            owns[n % len(owns), k] = True
            continue
        owners = np.flatnonzero(owns[:, most])
        client = gen.choice(owners)
        owns[client, most] = False
        owns[client, k] = True
    return owns


def _equal(size, owns):
    """``counts (N,) int64``: ``size`` over the owners, differing by at most 1."""
    counts = np.zeros(len(owns), np.int64)
    owners = np.flatnonzero(owns)
    share, rest = divmod(size, len(owners))
    counts[owners] = share
    counts[owners[:rest]] += 1
    return counts
