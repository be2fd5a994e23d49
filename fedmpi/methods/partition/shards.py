"""The pathological split of McMahan (1602.05629): sort by label, cut N s shards, give each
client s at random.

    n_i = total / N, at most 2 s classes per client where no class is smaller than a shard
"""

import numpy as np

from fedmpi.methods.partition.deal import by_class, feasible, lists, positive, topped_up


def shards(per_client: int = 2, min_size: int = 1):
    """``per_client`` pieces of the data sorted by label.

    Returns ``(labels, clients, gen) -> index arrays``.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    """
    positive(per_client=per_client, min_size=min_size)

    def partition(labels, clients, gen):
        feasible(len(labels), clients, max(per_client, min_size))
        pieces = np.array_split(np.concatenate(by_class(labels, gen)), clients * per_client)
        owner = np.empty(len(labels), np.int64)
        for i, piece in zip(gen.permutation(clients * per_client), pieces):
            owner[piece] = i // per_client
        return lists(topped_up(owner, clients, min_size, gen), clients, gen)

    return partition
