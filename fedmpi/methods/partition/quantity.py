"""Quantity skew by a Dirichlet draw (2102.02079): the same label mix, very different sizes.

    (n_1, ..., n_N) / total ~ Dir(beta 1_N)
"""

from fedmpi.methods.partition.deal import (feasible, positive, proportions, shards_of, sized,
                                           split)


def quantity(beta: float = 0.5, min_size: int = 10):
    """Sizes by a Dirichlet draw, at least ``min_size``, labels mixed alike.

    Returns ``(labels, clients, gen) -> index arrays``.

    Paper: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study",
        arXiv 2102.02079.
    """
    positive(beta=beta, min_size=min_size)

    def partition(labels, clients, gen):
        feasible(len(labels), clients, min_size)
        shares = proportions(beta, clients, gen)
        sizes = split(len(labels), shares)
        owner = sized(sizes, gen)
        return shards_of(owner, clients, min_size, gen)

    return partition
