"""Cooperative games with known answers, as tables: what contribution estimators are held against.

A game is ``v (2^C,) float64``; bit n of the row number says whether player n is in. ``Asked`` makes a utility of it."""

import itertools
import math

import numpy as np
import torch

from fedmpi.core.parts import Cohort, Round, Updates


class Asked:
    """``utility(coalitions (M, C) bool, of)`` of ``v (2^C,)``; ``distinct`` holds the coalitions that were asked for,
    ``calls`` counts the batches, ``of`` the kinds."""

    def __init__(self, v, clients=None):
        """``clients (C,)`` are the players of the columns: all, in order, where not given."""
        self.v, self.distinct, self.calls, self.of = v, set(), 0, set()
        self.bits = 1 << (torch.arange(int(math.log2(len(v)))) if clients is None else clients)

    def __call__(self, coalitions, of="loss"):
        assert coalitions.dtype == torch.bool and coalitions.shape[1] == len(self.bits)
        rows = (coalitions * self.bits).sum(dim=1)
        self.distinct.update(rows.tolist())
        self.calls += 1
        self.of.add(of)
        return self.v[rows]


def cohort(clients, t=1, rounds=10, updates=None, shares=None, x=None, layout=None):
    """The ``Cohort`` of ``clients``; a number stands for that many."""
    clients = torch.arange(clients) if isinstance(clients, int) else torch.as_tensor(clients)
    C = len(clients)
    if updates is None:
        updates = Updates(torch.zeros(C, 3), None, torch.arange(3, dtype=torch.int32), torch.ones(C).double(), 3)
    shares = torch.full((C,), 1 / C, dtype=torch.float64) if shares is None else shares
    return Cohort(clients, updates, Round(t, rounds), shares, torch.zeros(3) if x is None else x, layout)


def table(C, value):
    """``v (2^C,)`` of ``value(players: list) -> number``."""
    return torch.tensor([float(value([n for n in range(C) if b >> n & 1])) for b in range(1 << C)], dtype=torch.float64)


def additive(terms, start=0.0):
    return table(len(terms), lambda S: start + sum(terms[n] for n in S))


def squares(C):
    """``v(S) = |S|^2``: by symmetry and efficiency the Shapley value is C for each, and so is the equal core point."""
    return table(C, lambda S: len(S) ** 2)


GLOVE = table(3, lambda S: 0 in S and len(S) > 1)              # one left glove, two right ones: Shapley 2/3, 1/6, 1/6
MAJORITY = table(3, lambda S: len(S) > 1)                      # least core: e* = 1/3, a third each
ODD = table(4, lambda S: 5 * (0 in S and 1 in S) + 2 * (3 in S) - (0 in S or 1 in S))     # 0 and 1 alike, 2 is null


def saturating(qualities, scale=1.0):
    """``v(S) = 1 - exp(-scale sum of qualities)``: more of the same helps less."""
    return table(len(qualities), lambda S: 1 - math.exp(-scale * sum(qualities[n] for n in S)))


def averaging(qualities, gen, spread=0.05, noise=0.0, curve=1.0):
    """A merge of graded clients: ``v(S)`` falls with the square of a distance that the mean update of S leaves; the
    clients' own part of it, times ``spread``, shrinks with their number; the empty coalition is worse than most."""
    q, C = np.asarray(qualities, dtype=float), len(qualities)
    own = gen.normal(0, 1, (C, 8))

    def value(S):
        if not S:
            return -2.0
        mean = own[S].mean(axis=0)
        return -0.6 - (1 - q[S].mean()) ** 2 * curve - spread * mean @ mean

    v = table(C, value)
    return v + torch.from_numpy(gen.normal(0, noise, len(v)))


def random(C, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=1 << C))


def shapley(v):
    """By all C! permutations."""
    C = int(math.log2(len(v)))
    phi, orders = torch.zeros(C, dtype=torch.float64), list(itertools.permutations(range(C)))
    for order in orders:
        inside = 0
        for n in order:
            phi[n] += v[inside | 1 << n] - v[inside]
            inside |= 1 << n
    return phi / len(orders)


def swapped(v, order):
    """The game in which player ``order[n]`` plays what n played."""
    C = len(order)
    rows = torch.tensor([sum(1 << order[n] for n in range(C) if b >> n & 1) for b in range(1 << C)])
    out = torch.empty_like(v)
    out[rows] = v
    return out
