"""The pathological split of McMahan (1602.05629): sort by label, cut N s shards, give each
client s at random.

    n_i = total / N, at most 2 s classes per client where no class is smaller than a shard
"""

import numpy as np

from fedmpi.methods.partition.deal import by_class, feasible, positive, shards_of


def shards(per_client: int = 2, min_size: int = 1):
    """``per_client`` pieces of the data sorted by label.

    Returns ``(labels, clients, gen) -> index arrays``.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    """
    positive(per_client=per_client, min_size=min_size)

    def partition(labels, clients, gen):
        # A piece holds a sample at least.
        fewest = max(per_client, min_size)
        feasible(len(labels), clients, fewest)
        num_pieces = clients * per_client
        sorted_by_class = np.concatenate(by_class(labels, gen))
        # Of equal size but for 1.
        pieces = np.array_split(sorted_by_class, num_pieces)
        owner = np.empty(len(labels), np.int64)
        for place, piece in zip(gen.permutation(num_pieces), pieces):
            owner[piece] = place // per_client
        return shards_of(owner, clients, min_size, gen)

    return partition
