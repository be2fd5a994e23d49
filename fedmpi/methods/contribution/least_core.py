"""Least core: the allocation that leaves the least reason to break away (AAAI 2021).

    e* = min e   so that   sum_n phi_n = v(all),   sum_{n in S} phi_n + e >= v(S) for all S

with v(nobody) = 0 (Yan and Procaccia). Solutions are seldom unique: at e* (plus 1e-9 of the
largest |v|) this is the one of least norm, as equal as e* allows. The empty coalition is among
the S, as in the paper: e* >= 0, and if the core is not empty this is its point of least norm.

least-core takes all 2^C coalitions and is refused above ``limit`` clients; least-core-mc takes
``samples`` drawn with each client in with probability 1/2, nobody and everybody besides: with
probability 1 - p it violates at most a share d of all coalitions if samples ~ (C - log p) /
d^2. A linear and a quadratic programme of C unknowns and a row a coalition come on top. No
standard errors: the solution is no mean.

Blind spots: those of v; one extreme coalition moves e*, hence everybody; null players may be paid.
Sees: the updates, the server's own samples.
"""

import numpy as np
import torch

from fedmpi.methods.contribution.game import (Of, at_most, check_limit, contribution, ends,
                                              powerset)

# Both feasibility tolerances of the linear programme, far below the slack of e*.
PRECISION = 1e-10


def least_core(of: Of = "loss", limit: int = 16):
    """Allocation of least deficit over all coalitions.

    Paper: Yan and Procaccia 2021, "If You Like Shapley Then You'll Love the Core", AAAI 2021.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    Example: fedmpi train --contribution least-core --clients 6
    """
    check_limit(limit)

    def estimate(v, C, gen):
        """The allocation (C,) by all coalitions, without errors."""
        coalitions = powerset(C)
        return allocation(coalitions, v(coalitions)), None

    instead = "use least-core-mc, a smaller cohort or a larger limit"
    return contribution(of, estimate, at_most(limit, instead))


def least_core_mc(of: Of = "loss", samples: int = 200):
    """Allocation of least deficit over sampled coalitions.

    Paper: Yan and Procaccia 2021, "If You Like Shapley Then You'll Love the Core", AAAI 2021.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")

    def estimate(v, C, gen):
        """The allocation (C,) by the drawn coalitions, without errors."""
        chance = gen.random((samples, C))
        drawn = torch.from_numpy(chance < 0.5)
        both = torch.cat([ends(C), drawn])
        # Distinct ones come out sorted: nobody first, everybody last.
        coalitions = torch.unique(both, dim=0)
        return allocation(coalitions, v(coalitions)), None

    return contribution(of, estimate)


def allocation(coalitions, v):
    """``phi (C,)``: of least norm in the least core of distinct ``coalitions (M, C)``.

    They are sorted, nobody first and everybody last, with utilities ``v (M,)``."""
    S = coalitions.double().numpy()
    gain = (v - v[0]).numpy()
    # The solvers' tolerances are absolute: to them the largest gain is 1.
    scale = np.abs(gain).max() or 1.0
    gain = gain / scale
    proper = slice(1, -1)
    total = gain[-1]
    phi = least_norm(S[proper], gain[proper], total)
    return torch.from_numpy(phi * scale)


def least_norm(S, v, total, slack=1e-9):
    """``phi (C,)``: of least norm with ``phi(all) = total`` and ``S phi + e* >= v``.

    ``S (M, C)`` are proper coalitions. With phi = total / C + Z y, Z an orthonormal basis of the
    sums of 0, this is min |y| over G y >= h: least-distance programming, solved exactly by
    non-negative least squares (Lawson and Hanson 1974, chapter 23)."""
    from scipy.linalg import null_space
    from scipy.optimize import nnls

    C = S.shape[1]
    equal = np.full(C, total / C)
    if not len(S):
        return equal
    Z = null_space(np.ones((1, C)))
    e = least_deficit(S, v, total)
    G = S @ Z
    in_equal_shares = S @ equal
    h = v - e - slack - in_equal_shares
    target = np.zeros(C)
    target[-1] = 1
    E = np.vstack([G.T, h])
    u, _ = nnls(E, target)
    r = E @ u - target
    y = -r[:-1] / r[-1]
    return equal + Z @ y


def least_deficit(S, v, total):
    """``e* >= 0`` of proper coalitions ``S (M, C)`` with utilities ``v (M,)``.

    The solver's own allocation meets it."""
    from scipy.optimize import linprog

    M, C = S.shape
    # The unknowns are phi (C,) and e.
    objective = np.append(np.zeros(C), 1)
    of_everybody = np.append(np.ones(C), 0)
    solution = linprog(
        objective,
        A_ub=np.hstack([-S, -np.ones((M, 1))]),
        b_ub=-v,
        A_eq=of_everybody[None],
        b_eq=[total],
        bounds=[(None, None)] * C + [(0, None)],
        method="highs",
        options={
            "primal_feasibility_tolerance": PRECISION,
            "dual_feasibility_tolerance": PRECISION,
        },
    )
    assert solution.success, solution.message
    phi = solution.x[:-1]
    # The solver's sum is off by its tolerance.
    phi = phi + (total - phi.sum()) / C
    deficits = v - S @ phi
    return max(0.0, float(deficits.max()))
