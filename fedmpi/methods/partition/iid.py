"""Independent and identically distributed: a random permutation cut into equal pieces.

    |n_i - n_j| <= 1            (McMahan 2017, arXiv 1602.05629)
"""

import numpy as np

from fedmpi.methods.partition.deal import feasible, lists, positive, sized


def iid(min_size: int = 1):
    """Samples at random, in sizes that differ by at most 1.

    Returns ``(labels, clients, gen) -> index arrays``.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    """
    positive(min_size=min_size)

    def partition(labels, clients, gen):
        feasible(len(labels), clients, min_size)
        share, rest = divmod(len(labels), clients)
        sizes = np.full(clients, share)
        sizes[:rest] += 1
        return lists(sized(sizes, gen), clients, gen)

    return partition
