"""Duplicates: clients that hold what an honest client already holds, and so bring nothing, or
little, that is new.

    shard_n = shard_s for partial=1;   else (1 - partial) of its own samples and ``partial`` of those of s

s is a random client that duplicates nobody; several may copy the same one. The recorded quality
stays 1: the data are as good as the source's, from which no estimator that sees updates can
tell them; what to look at is how much copies and sources are paid (``copies`` in
``fedmpi.read.report.judged``). Replication is what a fair estimator must not pay for twice
(Agarwal 2019, arXiv 1805.08125; data Shapley shares it among the copies).
"""

import numpy as np

from fedmpi.core.parts import Fault
from fedmpi.methods.fault.training import drawn
from fedmpi.methods.noise.corrupt import fraction


def duplicate(share: float = 0.2, partial: float = 1.0):
    """round(share * clients) random clients whose shards are copies of honest ones.

    Paper: Agarwal, Dahleh and Sarkar 2019, "A Marketplace for Data: An Algorithmic Solution",
        arXiv 1805.08125.
    """
    fraction(partial=partial)

    def shards(shards, who, gen):
        source = np.full(len(shards), -1, np.int64)
        honest = np.flatnonzero(~who)
        if who.any() and not len(honest):
            raise ValueError(f"duplicate needs an honest client to copy: got share={share}, expected less than 1")
        source[who] = gen.choice(honest, who.sum()) if who.any() else -1
        return [own if s < 0 else _mixed(own, shards[s], partial, gen) for own, s in zip(shards, source)], source

    return Fault(drawn(share), 1.0, shards=shards)


def _mixed(own, other, partial, gen):
    """``other``, or a random part of both; never empty where neither is."""
    if partial == 1:
        return other.copy()
    kept = gen.permutation(own)[: len(own) - round(partial * len(own))]
    taken = gen.permutation(other)[: round(partial * len(other))]
    return np.concatenate([kept, taken])
