"""Cosine: how far a client's update points where the others point (CGSV, NeurIPS 2021; the thesis's score).

``psi_n = cos(u_n, U)`` with unit updates u_n and their mean ``U = sum_n r_n u_n`` under the present weights r. For
loo-cosine the mean leaves the client itself out, ``cos(u_n, U - r_n u_n)``: otherwise ``cos(u_n, r_n u_n)``
is part of the score and large clients are rewarded for being large. Sees: the updates, nothing else.
An update of norm 0 scores 0; running statistics of normalisation layers do not count; where clients hold different
masks a client is compared on the entries that it holds.
"""

import torch

from fedmpi.core.reduce import BLOCK, in_double, row_norms
from fedmpi.core.parts import Contribution, Scores


def cosine():
    """Agreement with the weighted mean of unit updates.

    Paper: Xu et al. 2021, "Gradient Driven Rewards to Guarantee Fairness in Collaborative Machine Learning", NeurIPS
        2021; the thesis's score.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    return Contribution(lambda state, cohort, utility, gen: Scores(cosines(cohort.updates, cohort.shares)))


def loo_cosine():
    """Agreement with the mean of the others: cosine without the self-term.

    Paper: Xu et al. 2021, "Gradient Driven Rewards to Guarantee Fairness in Collaborative Machine Learning", NeurIPS
        2021, there with the client's own part in the mean.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    return Contribution(lambda state, cohort, utility, gen: Scores(cosines(cohort.updates, cohort.shares, True)))


SIDE_BY_SIDE = 64        # clients up to which all inner products cost no more than reading the updates twice
WIDTH = 1 << 13          # columns whose products are summed in float32
FAINT = 1e-20            # squared lengths whose entries float32 cannot square


def cosines(updates, r, leave_one_out=False):
    """``psi (C,) float64`` of the updates under weights ``r (C,) float64``."""
    if updates.B is not None:
        return _held_cosines(updates, r, leave_one_out)
    U = updates.U[:, : updates.trained]
    if len(U) <= SIDE_BY_SIDE:
        gram = _gram(U)
        if bool((gram.diagonal() > FAINT).all()) and bool(gram.isfinite().all()):
            found = _by_products(gram, r, leave_one_out)
            if found is not None:
                return found
    return _by_passes(U, r, leave_one_out)


def _gram(U):
    """float64 (C, C): the inner products of the rows of ``U (C, K)``, block by block in float32: one pass.

    Cosines from it are off by less than 1e-6 / q, where the mean's length is a part q of what unit updates at right
    angles would leave."""
    gram = torch.zeros(len(U), len(U), dtype=torch.float64)
    for part in U.split(WIDTH, dim=1):
        gram += part @ part.T
    return gram


def _by_products(gram, r, leave_one_out):
    """From all inner products: the mean's with each update, and its length, are sums of them. None where updates cancel
    to less than a tenth, and rounding would show."""
    scale = gram.diagonal().rsqrt()
    unit = gram * scale[:, None] * scale                   # (C, C) cosines of any two
    weights = r.expand(len(r), -1)
    if leave_one_out:
        weights = weights * (1 - torch.eye(len(r), dtype=torch.float64))
    dots, square = (weights * unit).sum(dim=1), ((weights @ unit) * weights).sum(dim=1)
    apart = weights.square().sum(dim=1)                    # the mean's square, were all at right angles
    if bool((square < 1e-2 * apart).any()):
        return None
    return torch.where(apart > 0, dots / square.clamp(min=1e-24).sqrt(), 0.0)


def _by_passes(U, r, leave_one_out):
    """Lengths first, then the mean and its products with all updates, in float64."""
    norms = row_norms(U)
    scale = torch.where(norms > 0, 1 / norms.clamp(min=1e-300), 0.0)
    dots, square = torch.zeros_like(r), torch.zeros((), dtype=torch.float64)
    for part in in_double(U):
        mean = (r * scale) @ part
        dots += part @ mean                             # u_n . U, up to the length of u_n
        square += mean @ mean                           # |U|^2
    dots *= scale
    if leave_one_out:
        whole = square + r * r
        square, dots = square - 2 * r * dots + r * r * (norms > 0), dots - r * (norms > 0)
        square = torch.where(square > 1e-14 * whole, square, 0.0)        # nobody else: what is left is rounding
    return torch.where(square > 1e-24, dots / square.clamp(min=1e-24).sqrt(), 0.0)


def _held_cosines(updates, r, leave_one_out):
    """As ``cosines``, each client on the entries that it holds; the mean is over each entry's holders."""
    U, B = updates.U[:, : updates.trained], updates.B[:, : updates.trained]
    blocks = B.split(max(1, BLOCK // max(len(U), 1)), dim=1)
    squares = sum((u.mul_(held).square().sum(dim=1) for u, held in zip(in_double(U), blocks)),
                  torch.zeros(len(U), dtype=torch.float64))
    scale = torch.where(squares > 0, squares.clamp(min=1e-300).rsqrt(), 0.0)[:, None]
    dots, squares = torch.zeros(2, len(U), dtype=torch.float64)
    for u, held in zip(in_double(U), blocks):
        held = held.double()
        u.mul_(held).mul_(scale)
        total, share = r @ u, r @ held
        if leave_one_out:                                  # a mean for each client, of those others that hold the entry
            total, share = total - r[:, None] * u, share - r[:, None]
        mean = torch.where(share > 1e-12, total / share.clamp(min=1e-12), 0.0) * held
        dots += (u * mean).sum(dim=1)
        squares += mean.square().sum(dim=1)
    return torch.where(squares > 1e-24, dots / squares.clamp(min=1e-300).sqrt(), 0.0)
