"""Independent and identically distributed: a random permutation cut into equal pieces (1602.05629).

    |n_i - n_j| <= 1
"""

import numpy as np

from fedmpi.partition.deal import feasible, lists, sized


def iid():
    """A partition ``(labels, clients, gen) -> index arrays`` of sizes that differ by at most 1."""
    def partition(labels, clients, gen):
        feasible(len(labels), clients, 1)
        sizes = np.full(clients, len(labels) // clients)
        sizes[:len(labels) % clients] += 1
        return lists(sized(sizes, gen), clients, gen)

    return partition
