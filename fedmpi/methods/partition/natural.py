"""Natural clients: everybody holds its own samples, as in FEMNIST or Shakespeare.

A data set names the client of each sample, a user's own file by its data set ``client``, an id
a training row. Only the order of each client's samples is drawn. The server's validation
samples leave ``min_size`` to each client; clients with fewer in the data set are left out, as
LEAF leaves out users with few samples.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.methods.partition.deal import lists, positive

LEFT_OUT = -1


class Natural(NamedTuple):
    """A partition by the clients of the data set, if they have ``min_size`` samples or more."""

    min_size: int

    def chosen(self, client, num_clients):
        """``(owner (N,) int64, kept (n,) int64)`` of ``client (N,)`` in [0, num_clients).

        ``kept`` are the clients with enough samples; ``owner`` is each sample's place among
        them, or -1. ``ValueError`` if nobody has enough.
        """
        counts = np.bincount(client, minlength=num_clients)
        kept = np.flatnonzero(counts >= self.min_size)
        if not len(kept):
            raise ValueError(f"min_size must be at most {counts.max()}, what the largest of the "
                             f"{num_clients} clients has, got {self.min_size}")
        place = np.full(num_clients, LEFT_OUT, np.int64)
        place[kept] = np.arange(len(kept))
        return place[client], kept

    def spare(self, owner):
        """``(n,) bool``: the spare samples of clients, by their ``owner (n,)``.

        If they are taken from first to last, everybody keeps ``min_size``.
        """
        # By client, each client's samples in their order.
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner)
        ends = np.cumsum(counts)
        last_place = np.repeat(ends, counts) - 1
        num_after = np.empty(len(owner), np.int64)
        num_after[order] = last_place - np.arange(len(owner))
        return num_after >= self.min_size

    def dealt(self, owner, clients, gen):
        """Index arrays of the samples of each of ``clients``.

        ``ValueError`` if a client has fewer than ``min_size``.
        """
        counts = np.bincount(owner, minlength=clients)
        num_small = np.count_nonzero(counts < self.min_size)
        if num_small:
            raise ValueError(f"{num_small} of {clients} clients have fewer than {self.min_size} of "
                             "the samples that are used; leave --train-samples out, or take more")
        return lists(owner, clients, gen)


def natural(min_size: int = 1):
    """The clients of the data set itself, if they have ``min_size`` training samples or more.

    Paper: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097.
    Example: fedmpi train --dataset mine.h5 --partition natural
    """
    positive(min_size=min_size)
    return Natural(min_size)
