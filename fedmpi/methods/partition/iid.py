"""Independent and identically distributed: a random permutation cut into equal pieces (1602.05629).

    |n_i - n_j| <= 1
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
        sizes = np.full(clients, len(labels) // clients)
        sizes[:len(labels) % clients] += 1
        return lists(sized(sizes, gen), clients, gen)

    return partition
