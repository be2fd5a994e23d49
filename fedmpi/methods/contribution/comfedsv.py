"""ComFedSV: Shapley values of a utility matrix that sampled cohorts leave incomplete (arXiv 2109.09046).

Rows are rounds, columns the coalitions that grow along ``permutations`` random orders of all N clients, drawn once;
entry (t, S) is ``v_t(S) - v_t(nobody)``, observed where all of S took part in round t. The rest follows from

    min over W, H of  sum over observed (U_tS - w_t . h_S)^2 + ridge (|W|^2 + |H|^2),       w, h of ``rank`` numbers,

with U in units of its root mean square, solved by ``iterations`` of alternating least squares, in which the ridge falls
to its value by a tenth each. Observed entries stay as they are. Then, summed over the rounds so far,

    phi_n = mean over orders of sum over t of U_t(those before n, and n) - U_t(those before n)

so that clients with the same data score alike whether or not they were sampled. Where N! <= ``permutations`` each order
is taken once. Everybody takes part in round 1: every coalition is observed there. ``error`` is the standard error over
orders; it does not know of the completion.

Costs up to ``permutations`` (N - 1) + 2 utilities in round 1, later those of orders that start with clients of the
cohort; and, every round, the sweeps over the matrix of all rounds. Its state, that matrix, grows by ``permutations`` N
floats a round. Blind spots: what happened only in rounds in which a client was away is inferred; the
scores remember, hence its usual weighting does not. Sees: the updates, the server's own samples.
"""

import itertools
import math

import torch

from fedmpi.methods.contribution.game import (Of, SEES, check_of, draw_orders, gains,
                                              mean_and_error, prefixes)
from fedmpi.core.parts import Contribution, Scores


def comfedsv(of: Of = "loss", permutations: int = 20, rank: int = 5, ridge: float = 0.01, iterations: int = 100):
    """Shapley values over all clients and rounds, absent ones inferred by matrix completion.

    Paper: Fan et al. 2022, "Improving Fairness for Data Valuation in Horizontal Federated Learning", arXiv 2109.09046.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more; but all clients are asked in round 1.
    Example: fedmpi train --contribution comfedsv --cohort 4
    """
    check_of(of)
    if permutations < 1 or rank < 1 or iterations < 1:
        raise ValueError(f"permutations, rank and iterations must be >= 1, got {permutations}, {rank} and {iterations}")
    if not ridge > 0:
        raise ValueError(f"ridge must be > 0, got {ridge}: without it what was never observed has no value")

    def score(state, cohort, utility, gen):
        N = state["orders"].shape[1]
        orders = state["orders"] if len(state["orders"]) else all_or_drawn(gen, permutations, N)
        columns, column_of = torch.unique(prefixes(orders).flatten(0, 1), dim=0, return_inverse=True)
        values, seen = observe(columns, cohort, lambda coalitions: utility(coalitions, of))
        if len(state["values"]):
            values, seen = torch.cat([state["values"], values]), torch.cat([state["seen"], seen])
        whole = bool(seen.all())
        table = values if whole else torch.where(seen, values,
                                                 complete(values, seen, rank_of(seen, rank), ridge, iterations))
        levels = table.sum(dim=0)[column_of].view(len(orders), N + 1)
        phi, error = mean_and_error(gains(orders, levels))
        sampled = error is not None and len(orders) < math.factorial(N)
        return Scores(phi[cohort.clients], {"orders": orders, "values": values, "seen": seen},
                      error[cohort.clients] if sampled else None)

    def init(n):
        return {"orders": torch.zeros(0, len(n), dtype=torch.int64), "values": torch.zeros(0, 0, dtype=torch.float64),
                "seen": torch.zeros(0, 0, dtype=torch.bool)}

    def notes(facts):
        idle = [name for name in ("rank", "ridge", "iterations") if name in facts.given]
        if facts.everybody and idle:
            yield (f"no effect of {', '.join(idle)}: all clients take part in every round, and nothing is to "
                   "be inferred")

    return Contribution(score, weighting="relu:memory=0", init=init, validated=True,
                        opening=True, cumulative=True, sees=SEES, notes=notes)


def all_or_drawn(gen, permutations, N):
    """``(L, N) int64``: ``permutations`` orders of N clients; each once where there are no more."""
    if N <= 10 and math.factorial(N) <= permutations:
        return torch.tensor(list(itertools.permutations(range(N))))
    return draw_orders(gen, permutations, N)


def observe(columns, cohort, v):
    """``(values (1, K) float64, seen (1, K) bool)``: what this round's cohort shows of ``columns (K, N) bool``, less
    the utility of nobody, which is always seen; 0 where not seen."""
    away = torch.ones(columns.shape[1], dtype=torch.bool)
    away[cohort.clients] = False
    seen = ~(columns & away).any(dim=1)
    utilities = v(torch.cat([torch.zeros(1, len(cohort.clients), dtype=torch.bool), columns[seen][:, cohort.clients]]))
    values = torch.zeros(1, len(columns), dtype=torch.float64)
    values[0, seen] = utilities[1:] - utilities[0]
    return values, seen[None]


def rank_of(seen, rank):
    """``rank``, or as many rounds as the least observed column was seen in: a vector of factors cannot be had from
    fewer numbers than it has."""
    return max(1, min(rank, int(seen.sum(dim=0).min())))


def complete(values, seen, rank, ridge, iterations):
    """``(T, K)``: the product of factors of at most ``rank`` that fits ``values (T, K)`` where ``seen`` (0 elsewhere).

    From the singular vectors of what is seen, and with a ridge that falls from 1: from random factors and with a small
    ridge alternation often ends where entries that are not seen are thousands (seen on the games of the tests)."""
    scale = float(values[seen].square().mean().sqrt()) or 1.0
    U, weight = values / scale, seen.double()
    _, s, V = torch.linalg.svd(U, full_matrices=False)
    H = (V[:rank] * s[:rank, None].sqrt()).T
    for i in range(iterations):
        now = max(ridge, 0.9 ** i)
        W = regress(H, U, weight, now)
        H = regress(W, U.T, weight.T, now)
    return scale * (W @ H.T)


def regress(F, U, weight, ridge):
    """``(T, r)``: for each row of ``U (T, K)`` the ridge regression on ``F (K, r)`` of its entries with ``weight``."""
    r = F.shape[1]
    squares = (F[:, :, None] * F[:, None, :]).flatten(1)                                 # (K, r r)
    A = (weight @ squares).view(-1, r, r) + ridge * torch.eye(r, dtype=torch.float64)
    return torch.linalg.solve(A, (weight * U) @ F)
