"""Duplicates: clients with the data of an honest client, which bring nothing, or little, new.

    shard_n = shard_s for partial=1
    else (1 - partial) of its own samples and ``partial`` of the samples of s

s is a random honest client; several may copy the same one. The recorded quality stays 1: the
data are as good as the source's, and no estimator can tell the two apart by their updates; the
question is how much copies and sources are paid (``copies`` in ``fedmpi.read.report.judged``).
A fair estimator must not pay twice for replication (Agarwal 2019, arXiv 1805.08125; data
Shapley shares the pay among the copies).
"""

import numpy as np

from fedmpi.core.parts import Fault
from fedmpi.methods.fault.training import drawn
from fedmpi.methods.noise.corrupt import fraction

HONEST = -1


def duplicate(share: float = 0.2, partial: float = 1.0):
    """round(share * clients) random clients with copies of honest clients' shards.

    Paper: Agarwal, Dahleh and Sarkar 2019, "A Marketplace for Data: An Algorithmic Solution",
        arXiv 1805.08125.
    """
    fraction(partial=partial)

    def shards(shards, who, gen):
        source = sources(who, gen)
        changed = []
        for own, s in zip(shards, source):
            if s != HONEST:
                own = _mixed(own, shards[s], partial, gen)
            changed.append(own)
        return changed, source

    def sources(who, gen):
        """(clients,) int64: the honest client behind each copy, or HONEST."""
        source = np.full(len(who), HONEST, np.int64)
        honest = np.flatnonzero(~who)
        if not who.any():
            return source
        if not len(honest):
            raise ValueError("duplicate needs an honest client to copy: "
                             f"got share={share}, expected less than 1")
        source[who] = gen.choice(honest, who.sum())
        return source

    return Fault(drawn(share), 1.0, shards=shards)


def _mixed(own, other, partial, gen):
    """``other``, or a random part of both; never empty if neither is."""
    if partial == 1:
        return other.copy()
    # Kept and taken samples add up to the client's own number, if both have as many.
    num_kept = len(own) - round(partial * len(own))
    num_taken = round(partial * len(other))
    kept = gen.permutation(own)[:num_kept]
    taken = gen.permutation(other)[:num_taken]
    return np.concatenate([kept, taken])
