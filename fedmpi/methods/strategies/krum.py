"""Krum and Multi-Krum: the update, or the mean of the updates, with the nearest neighbours (Blanchard et al., NeurIPS
2017).

``score_n = sum of |U_n - U_i|^2 over the C - f - 2 updates i nearest to n``; Krum moves the model by the update of
least score, Multi-Krum by the weighted mean of the ``select`` least. f of the C clients are taken to be Byzantine, and
the paper asks for C >= 2 f + 3: a cohort, or a coalition of it, that is smaller has the largest f that this allows. A
score asks nobody's weight; a client of weight 0 is no part of the cohort. Where
scores are equal the paper takes the first client; here all of them share the step, so that the order of clients plays
no part (for f = 0 and C = 3 that is always the closest pair).

Under masks of the clients' own, two clients are compared on the trained entries that both hold, and their squared
distance is multiplied by ``trained entries / common entries``; without a common one it is infinite. The step is the
mean over those of the selected that hold an entry: what none of them holds does not move. Running statistics are
merged likewise but do not decide. Cost: C^2 K multiplications, four times that under own masks.
"""

import math

import torch

from fedmpi.core.reduce import mean, moved
from fedmpi.core.parts import Strategy


def krum(byzantine: float = 0.2):
    """The one update that is nearest to its neighbours; ``byzantine`` is the share f / C, rounded down to clients.

    Paper: Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS
        2017.
    Up: the kept values of the update, as FedAvg, one by one: workers may not add them up.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy krum --fault sign-flip:share=0.2
    """
    one = multi_krum(byzantine, 1)

    def notes(facts):
        yield from one.notes(facts)
        if not facts.even:
            yield (f"it takes one client's update: {facts.named['weighting']} decides at most who is "
                   "left out")

    return one._replace(notes=notes)


def multi_krum(byzantine: float = 0.2, select: int = 0):
    """Mean of the ``select`` updates nearest to their neighbours, where 0 is C - f - 2; ``byzantine`` is f / C.

    Paper: Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS
        2017.
    Up: the kept values of the update, as FedAvg, one by one: workers may not add them up.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy multi-krum --fault sign-flip:share=0.2
    """
    if not 0 <= byzantine < 0.5:
        raise ValueError(f"byzantine must be in [0, 0.5), the share of the cohort, got {byzantine}")
    if select < 0:
        raise ValueError(f"select must be >= 0, got {select}")

    def merge(state, x, updates, weights):
        updates, weights = updates.rows(weights > 0), weights[weights > 0]
        near = neighbours(len(weights), byzantine)
        chosen = best(squared_distances(updates), near, select or max(near, 1))
        weights = weights[chosen] / weights[chosen].sum()
        return state, moved(x, updates.support, mean(updates.rows(chosen), weights))

    def notes(facts):
        if byzantine and not assumed(facts.cohort, byzantine):
            yield (f"it takes nobody for Byzantine: byzantine={byzantine} of {facts.cohort} clients is 0 of "
                   "them, where C >= 2 f + 3 must hold; give a larger cohort")
        if select >= facts.cohort:
            yield f"select={select} takes all of the {facts.cohort} clients: this is a plain mean"

    return Strategy(lambda layout: {}, merge, contribution="uniform", notes=notes)


def neighbours(C, byzantine):
    """How many of the others a score sums over: C - f - 2, 0 or 1 of one or two clients."""
    return max(C - assumed(C, byzantine) - 2, min(C - 1, 1))


def assumed(C, byzantine):
    """f: how many of the C clients are taken to be Byzantine, no more than ``C >= 2 f + 3`` allows."""
    return min(math.floor(byzantine * C + 1e-9), max((C - 3) // 2, 0))


def best(squares, near, select):
    """bool (C,): the ``select`` clients with the least sum of their ``near`` smallest ``squares (C, C)`` to others, and
    whoever ties with the last of them."""
    others = squares.clone().fill_diagonal_(torch.inf)
    scores = others.sort(dim=1).values[:, :near].sum(dim=1)
    return scores <= scores.sort().values[min(select, len(scores)) - 1] * (1 + 1e-9)


def squared_distances(updates):
    """float64 (C, C), symmetric: between the trained entries of any two updates, as the module says under own masks.
    What rounding leaves of equal rows is 0."""
    C, common = len(updates.U), updates.trained
    gram, square, shared = torch.zeros(3, C, C, dtype=torch.float64)
    for _, u, b in trained_blocks(updates):
        gram.addmm_(u, u.T)
        if b is not None:
            square.addmm_(u * u, b.T)                    # |U_n|^2 over what the other holds too
            shared.addmm_(b, b.T)
    if updates.B is None:
        square, shared = gram.diagonal()[:, None].expand(C, C), torch.full_like(gram, common)
    both = square + square.T
    squares = both - (gram + gram.T)
    squares = torch.where(squares > 1e-12 * both, squares, 0.0)
    return torch.where(shared > 0, squares * (common / shared), torch.inf)


def trained_blocks(updates, block=1 << 14):
    """``(columns, u, b)`` of up to ``block`` trained columns at a time: a slice, the updates (C, k) float64, 0 where a
    client does not hold the entry, and who holds it (C, k) float64, None where all do."""
    for start in range(0, updates.trained, block):
        columns = slice(start, min(start + block, updates.trained))
        u, b = updates.U[:, columns].double(), None
        if updates.B is not None:
            b = updates.B[:, columns].double()
            u *= b
        yield columns, u, b
