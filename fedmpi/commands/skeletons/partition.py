"""NAME: every client has a fixed part of the samples of the one before.

    n_k ~ ratio^k          and at least one sample each
"""

import numpy as np


def NAME(ratio: float = 0.8):
    """Sizes that fall by ``ratio`` from client to client, labels mixed alike.

    Paper: none: a first sketch.
    Example: fedmpi train --partition NAME:NAME:ratio=0.5 --clients 5
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], got {ratio}")

    def partition(labels, clients, gen):
        # A list of int64 arrays, one a client: numbers of samples, none of them twice.
        n = len(labels)
        if n < clients:
            raise ValueError(f"{n} samples cannot give {clients} clients one each")
        shares = ratio ** np.arange(clients)
        cumulated = np.cumsum(shares) / shares.sum()
        # One sample is each client's anyway; the shares decide about the rest.
        num_further = np.rint(cumulated * (n - clients))
        ends = np.arange(1, clients + 1) + num_further
        inner_ends = ends[:-1].astype(np.int64)
        order = gen.permutation(n)
        return np.split(order, inner_ends)

    return partition
