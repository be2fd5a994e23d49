"""Natural clients: everybody holds the samples that are theirs in the data set, as in FEMNIST or
Shakespeare.

A data set says whose a sample is, a user's own file by its data set ``client``, an id a training
row. Nothing is drawn but the order of each client's samples. The validation samples of the server
are taken so that each client keeps ``min_size``; clients that have fewer in the data set are left
out, as LEAF leaves out users with few samples.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.methods.partition.deal import lists, positive


class Natural(NamedTuple):
    """A partition by the clients of the data set; clients with fewer than ``min_size`` samples are
    left out."""

    min_size: int

    def chosen(self, client, num_clients):
        """``(owner (N,) int64, kept (n,) int64)`` of ``client (N,)`` in [0, num_clients): samples
        by their place in ``kept``, the clients that are not left out; -1 where left out.
        ``ValueError`` where nobody has enough."""
        counts = np.bincount(client, minlength=num_clients)
        kept = np.flatnonzero(counts >= self.min_size)
        if not len(kept):
            raise ValueError(f"min_size must be at most {counts.max()}, what the largest of the "
                             f"{num_clients} clients has, got {self.min_size}")
        place = np.full(num_clients, -1, np.int64)
        place[kept] = np.arange(len(kept))
        return place[client], kept

    def spare(self, owner):
        """``(n,) bool``: which samples of ``owner (n,)``, from first to last, may be taken from
        their clients so that everybody keeps ``min_size``."""
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner)
        ends = np.cumsum(counts)
        # How many samples of the same client come after each one.
        after = np.empty(len(owner), np.int64)
        after[order] = np.repeat(ends, counts) - 1 - np.arange(len(owner))
        return after >= self.min_size

    def dealt(self, owner, clients, gen):
        """Index arrays of the samples of each of ``clients``; ``ValueError`` where one has fewer
        than ``min_size``."""
        counts = np.bincount(owner, minlength=clients)
        few = np.count_nonzero(counts < self.min_size)
        if few:
            raise ValueError(f"{few} of {clients} clients have fewer than {self.min_size} of the "
                             "samples that are used; leave --train-samples out, or take more")
        return lists(owner, clients, gen)


def natural(min_size: int = 1):
    """The clients of the data set itself, those with ``min_size`` training samples or more.

    Paper: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097.
    Example: fedmpi train --dataset mine.h5 --partition natural
    """
    positive(min_size=min_size)
    return Natural(min_size)
