"""ComFedSV: Shapley values of a utility matrix, incomplete for sampled cohorts.

Rows are rounds, columns the growing coalitions along ``permutations`` random orders of all N
clients, drawn once; entry (t, S) is ``U_t(S) = v_t(S) - v_t(nobody)``, observed if all of S took
part in round t. All other entries follow from (arXiv 2109.09046)

    min over W, H of  sum over observed (U_tS - w_t . h_S)^2 + ridge (|W|^2 + |H|^2)

with w, h of ``rank`` numbers and U in units of its root mean square, solved by ``iterations`` of
alternating least squares. Their ridge starts at 1 and falls by a tenth each, down to ``ridge``.
Observed entries stay as they are. Then, summed over the rounds so far,

    phi_n = mean over orders of sum over t of U_t(n's predecessors, and n) - U_t(n's predecessors)

so that clients with the same data score alike whether or not they were sampled. If N! <=
``permutations``, each order is taken once. Everybody takes part in round 1: every coalition is
observed there. ``error`` is the standard error over orders; it does not know of the completion.

Costs up to ``permutations`` (N - 1) + 2 utilities in round 1, later only for coalitions inside the
cohort; and, every round, the sweeps over the matrix of all rounds. The matrix is its state, and
grows by ``permutations`` N floats a round. Blind spots: a client's absent rounds are inferred; the
scores remember, hence its usual weighting does not. Sees: the updates, the server's own samples.
"""

import itertools
import math

import torch

from fedmpi.methods.contribution.game import (Of, SEES, check_of, draw_orders, gains,
                                              mean_and_error, prefixes)
from fedmpi.core.parts import Contribution, Scores


def comfedsv(of: Of = "loss", permutations: int = 20, rank: int = 5, ridge: float = 0.01,
             iterations: int = 100):
    """Shapley values over all clients and rounds, absent ones inferred by matrix completion.

    Paper: Fan et al. 2022, "Improving Fairness for Data Valuation in Horizontal Federated
        Learning", arXiv 2109.09046.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more; but all clients are asked in round 1.
    Example: fedmpi train --contribution comfedsv --cohort 4
    """
    check_of(of)
    if permutations < 1 or rank < 1 or iterations < 1:
        raise ValueError("permutations, rank and iterations must be >= 1, got "
                         f"{permutations}, {rank} and {iterations}")
    if not ridge > 0:
        raise ValueError(f"ridge must be > 0, got {ridge}: without it what was never observed has "
                         "no value")

    def score(state, cohort, utility, gen):
        """The cohort's values over all rounds, and the matrix with one more row."""
        orders = state["orders"]
        N = orders.shape[1]
        if not len(orders):
            orders = all_or_drawn(gen, permutations, N)
        grown = prefixes(orders).flatten(0, 1)
        # Orders share coalitions: each is a column once.
        columns, column_of = torch.unique(grown, dim=0, return_inverse=True)

        def v(coalitions):
            """The game of this round's cohort."""
            return utility(coalitions, of)

        row, row_seen = observe(columns, cohort, v)
        values, seen = appended(state, row, row_seen)
        U = completed(values, seen, rank, ridge, iterations)
        over_rounds = U.sum(dim=0)
        levels = over_rounds[column_of].view(-1, N + 1)
        phi, error = mean_and_error(gains(orders, levels))
        # Of all N! orders the mean is exact.
        if len(orders) == math.factorial(N):
            error = None
        if error is not None:
            error = error[cohort.clients]
        state = {"orders": orders, "values": values, "seen": seen}
        return Scores(phi[cohort.clients], state, error)

    def notes(facts):
        options = ("rank", "ridge", "iterations")
        idle = [name for name in options if name in facts.user_options]
        if facts.everybody and idle:
            yield (f"no effect of {', '.join(idle)}: all clients take part in every round, and "
                   "nothing is to be inferred")

    return Contribution(
        score,
        # Scores remember all rounds: weights need not.
        weighting="relu:memory=0",
        init=init,
        validated=True,
        # Round 1 observes every column.
        opening=True,
        cumulative=True,
        sees=SEES,
        notes=notes,
    )


def init(n):
    """The state before round 1: no orders of the N clients, and no rounds."""
    N = len(n)
    return {
        "orders": torch.zeros(0, N, dtype=torch.int64),
        "values": torch.zeros(0, 0, dtype=torch.float64),
        "seen": torch.zeros(0, 0, dtype=torch.bool),
    }


# --- the matrix ---

def all_or_drawn(gen, permutations, N):
    """``(L, N) int64``: ``permutations`` orders of N clients; each once if there are no more."""
    # Factorials of more are beyond any number of permutations.
    if N <= 10 and math.factorial(N) <= permutations:
        orders = itertools.permutations(range(N))
        return torch.tensor(list(orders))
    return draw_orders(gen, permutations, N)


def observe(columns, cohort, v):
    """``(values (1, K) float64, seen (1, K) bool)``: the round's row of the matrix.

    A coalition, a row of ``columns (K, N) bool``, is seen if all its clients are in the cohort.
    Values are 0 elsewhere. The utility of nobody is always seen."""
    K, N = columns.shape
    away = torch.ones(N, dtype=torch.bool)
    away[cohort.clients] = False
    seen = ~(columns & away).any(dim=1)
    # The utility knows the cohort alone.
    coalitions = columns[seen][:, cohort.clients]
    C = len(cohort.clients)
    nobody = torch.zeros(1, C, dtype=torch.bool)
    utilities = v(torch.cat([nobody, coalitions]))
    gains = utilities[1:] - utilities[0]
    values = torch.zeros(1, K, dtype=torch.float64)
    values[0, seen] = gains
    return values, seen[None]


def appended(state, row, row_seen):
    """``(values (T, K), seen (T, K))``: the state's rows and one more."""
    # The state before round 1 has no columns.
    if not len(state["values"]):
        return row, row_seen
    values = torch.cat([state["values"], row])
    seen = torch.cat([state["seen"], row_seen])
    return values, seen


# --- its completion ---

def completed(values, seen, rank, ridge, iterations):
    """``(T, K)``: ``values`` where they were ``seen``, inferred elsewhere."""
    if bool(seen.all()):
        return values
    sure_rank = rank_of(seen, rank)
    inferred = complete(values, seen, sure_rank, ridge, iterations)
    return torch.where(seen, values, inferred)


def rank_of(seen, rank):
    """``rank``, or as many rounds as the least observed column was seen in.

    A vector of factors cannot follow from fewer numbers than it has."""
    fewest = int(seen.sum(dim=0).min())
    return max(1, min(rank, fewest))


def complete(values, seen, rank, ridge, iterations):
    """``(T, K)``: the product of factors of at most ``rank`` that fits the seen ``values (T, K)``.

    Values are 0 off ``seen``. It starts from the singular vectors of the seen values, with a ridge
    that falls from 1: from random factors and with a small ridge alternation often ends with
    unseen entries of thousands (on the games of the tests)."""
    mean_square = values[seen].square().mean()
    # A matrix of zeros has no unit.
    scale = float(mean_square.sqrt()) or 1.0
    U = values / scale
    weight = seen.double()
    _, s, V = torch.linalg.svd(U, full_matrices=False)
    roots = s[:rank, None].sqrt()
    H = (V[:rank] * roots).T
    for i in range(iterations):
        current_ridge = max(ridge, 0.9 ** i)
        W = regress(H, U, weight, current_ridge)
        H = regress(W, U.T, weight.T, current_ridge)
    return scale * (W @ H.T)


def regress(F, U, weight, ridge):
    """``(T, r)``: for each row of ``U (T, K)`` its ridge regression on ``F (K, r)``.

    Only entries with ``weight (T, K)`` 1 count."""
    r = F.shape[1]
    # (K, r, r): the product of each row of F with itself.
    outer = F[:, :, None] * F[:, None, :]
    A = weight @ outer.flatten(1)
    eye = torch.eye(r, dtype=torch.float64)
    A = A.view(-1, r, r) + ridge * eye
    b = (weight * U) @ F
    return torch.linalg.solve(A, b)
