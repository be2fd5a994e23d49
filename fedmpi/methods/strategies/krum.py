"""Krum and Multi-Krum: the update, or the mean of the updates, with the nearest neighbours.

    score_n = sum of |U_n - U_i|^2 over the C - f - 2 updates i nearest to n

Krum moves the model by the update of least score, Multi-Krum by the weighted mean of the
``select`` least (Blanchard et al., NeurIPS 2017). f of the C clients are taken to be Byzantine,
and the paper asks for C >= 2 f + 3: a smaller cohort, or coalition, has the largest f that this
allows. Scores do not depend on weights; a client of weight 0 is no part of the cohort. Of equal
scores the paper takes the first client; here all of them share the step, so that the order of
clients plays no part (for f = 0 and C = 3 the closest pair always shares it).

Under masks of the clients' own, two clients are compared on the trained entries of both, and
their squared distance is multiplied by ``trained entries / common entries``; without a common
one it is infinite. The step is the mean over the selected clients that hold an entry; without a
holder it does not move. Running statistics are merged likewise but do not decide. Cost: C^2 K
multiplications, four times as many under own masks.
"""

import math

import torch

from fedmpi.core.reduce import mean, moved
from fedmpi.core.parts import Strategy
from fedmpi.methods.strategies.fedavg import stateless


def krum(byzantine: float = 0.2):
    """The one update that is nearest to its neighbours.

    ``byzantine`` is the share f / C, rounded down to clients.

    Paper: Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
        Descent", NeurIPS 2017.
    Up: the kept values of the update, as FedAvg, one by one: workers may not add them up.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy krum --fault sign-flip:share=0.2
    """
    one = multi_krum(byzantine, select=1)

    def notes(facts):
        yield from one.notes(facts)
        if not facts.even:
            yield (f"it takes one client's update: {facts.named['weighting']} decides at most who "
                   "is left out")

    return one._replace(notes=notes)


def multi_krum(byzantine: float = 0.2, select: int = 0):
    """Mean of the ``select`` updates nearest to their neighbours.

    ``byzantine`` is the share f / C; ``select=0`` takes C - f - 2 updates.

    Paper: Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
        Descent", NeurIPS 2017.
    Up: the kept values of the update, as FedAvg, one by one: workers may not add them up.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy multi-krum --fault sign-flip:share=0.2
    """
    if not 0 <= byzantine < 0.5:
        raise ValueError(f"byzantine must be in [0, 0.5), the share of the cohort, got {byzantine}")
    if select < 0:
        raise ValueError(f"select must be >= 0, got {select}")

    def merge(state, x, updates, weights):
        members = weights > 0
        updates = updates.rows(members)
        weights = weights[members]
        near = neighbours(len(weights), byzantine)
        number = select or max(near, 1)
        chosen = best(squared_distances(updates), near, number)
        weights = weights[chosen] / weights[chosen].sum()
        step = mean(updates.rows(chosen), weights)
        return state, moved(x, updates.support, step)

    def notes(facts):
        f = assumed(facts.cohort, byzantine)
        if byzantine and f == 0:
            yield (f"it takes nobody for Byzantine: byzantine={byzantine} of {facts.cohort} "
                   "clients is 0 of them, where C >= 2 f + 3 must hold; give a larger cohort")
        if select >= facts.cohort:
            yield (f"select={select} takes all of the {facts.cohort} clients: this is a plain mean")

    return Strategy(
        stateless,
        merge,
        # The rule itself mistrusts: no scores unless somebody asks for them.
        contribution="uniform",
        notes=notes,
    )


def neighbours(C, byzantine):
    """How many of the others a score sums over: C - f - 2, 0 or 1 of one or two clients."""
    least = min(C - 1, 1)
    return max(C - assumed(C, byzantine) - 2, least)


def assumed(C, byzantine):
    """f: how many of the C clients count as Byzantine, at most as ``C >= 2 f + 3`` allows."""
    most = max((C - 3) // 2, 0)
    # A share of 0.29 of 100 clients is 28.999... in floats.
    wanted = math.floor(byzantine * C + 1e-9)
    return min(wanted, most)


def best(squares, near, select):
    """bool (C,): the ``select`` clients of least score, and all that tie with the last of them.

    A score is the sum of a client's ``near`` smallest ``squares (C, C)`` to others."""
    others = squares.clone().fill_diagonal_(torch.inf)
    nearest = others.sort(dim=1).values[:, :near]
    scores = nearest.sum(dim=1)
    last = min(select, len(scores)) - 1
    bound = scores.sort().values[last]
    return scores <= bound * (1 + 1e-9)


def squared_distances(updates):
    """float64 (C, C), symmetric: between the trained entries of any two updates.

    Under own masks as the module says."""
    gram, square, shared = _products(updates)
    both = square + square.T
    squares = both - (gram + gram.T)
    # Equal rows differ by rounding alone: their distance is 0.
    squares = torch.where(squares > 1e-12 * both, squares, 0.0)
    scaled = squares * (updates.trained / shared)
    return torch.where(shared > 0, scaled, torch.inf)


def _products(updates):
    """``(gram, square, shared)``, float64 (C, C) each, over trained entries.

    ``gram[n, i]`` is ``U_n . U_i``, ``square[n, i]`` is ``|U_n|^2`` over the entries that i holds
    too, and ``shared[n, i]`` counts the entries that both hold."""
    C = len(updates.U)
    gram, square, shared = torch.zeros(3, C, C, dtype=torch.float64)
    for _, u, b in trained_blocks(updates):
        gram.addmm_(u, u.T)
        if b is not None:
            square.addmm_(u * u, b.T)
            shared.addmm_(b, b.T)
    if updates.B is None:
        square = gram.diagonal()[:, None].expand(C, C)
        shared = torch.full_like(gram, updates.trained)
    return gram, square, shared


def trained_blocks(updates, block=1 << 14):
    """``(columns, u, b)`` of up to ``block`` trained columns at a time.

    ``columns`` is a slice; ``u (C, k)`` float64 are the updates, 0 for entries outside a client's
    mask; ``b (C, k)`` float64 is 1 inside it, else 0, and None if all clients hold all."""
    for start in range(0, updates.trained, block):
        end = min(start + block, updates.trained)
        columns = slice(start, end)
        u = updates.U[:, columns].double()
        b = None
        if updates.B is not None:
            b = updates.B[:, columns].double()
            u *= b
        yield columns, u, b
