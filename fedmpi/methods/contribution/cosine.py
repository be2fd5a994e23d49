"""Cosine: how far a client's update points where the others point (CGSV, NeurIPS 2021).

    cosine        psi_n = cos(u_n, U),              U = sum_m r_m u_m,     u_n = Delta_n / |Delta_n|
    loo-cosine    psi_n = cos(u_n, U - r_n u_n)

r are the clients' present weights. ``cosine`` is the thesis's score. Its mean holds the client
itself: ``cos(u_n, r_n u_n)`` is part of the score, and large clients are rewarded for being large.
loo-cosine leaves the client out of the mean.

Sees: the updates, nothing else. An update of norm 0 scores 0; running statistics of normalisation
layers do not count; under masks of the clients' own a client is compared on its own entries.
"""

import torch

from fedmpi.core.reduce import BLOCK, in_double, row_norms
from fedmpi.core.parts import Contribution, Scores

# Up to so many clients all inner products cost no more than reading the updates twice.
SIDE_BY_SIDE = 64
# Columns whose products are summed in float32.
WIDTH = 1 << 13
# Updates of a smaller squared length have entries that float32 cannot square.
FAINT = 1e-20


def cosine():
    """Agreement with the weighted mean of unit updates.

    Paper: Xu et al. 2021, "Gradient Driven Rewards to Guarantee Fairness in Collaborative Machine
        Learning", NeurIPS 2021; the thesis's score.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """

    def score(state, cohort, utility, gen):
        """The cosines with the mean of all."""
        psi = cosines(cohort.updates, cohort.shares)
        return Scores(psi)

    return Contribution(score)


def loo_cosine():
    """Agreement with the mean of the others: cosine without the self-term.

    Paper: Xu et al. 2021, "Gradient Driven Rewards to Guarantee Fairness in Collaborative Machine
        Learning", NeurIPS 2021, there with the client's own part in the mean.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """

    def score(state, cohort, utility, gen):
        """The cosines with the means of all others."""
        psi = cosines(cohort.updates, cohort.shares, leave_one_out=True)
        return Scores(psi)

    return Contribution(score)


def cosines(updates, r, leave_one_out=False):
    """``psi (C,) float64`` of the updates under weights ``r (C,) float64``."""
    if updates.B is not None:
        return _held_cosines(updates, r, leave_one_out)
    U = updates.U[:, : updates.trained]
    psi = None
    if len(U) <= SIDE_BY_SIDE:
        gram = _gram(U)
        if _is_sound(gram):
            psi = _by_products(gram, r, leave_one_out)
    if psi is None:
        psi = _by_passes(U, r, leave_one_out)
    return psi


# --- one pass: from all inner products ---

def _gram(U):
    """float64 (C, C): the inner products of the rows of ``U (C, K)``, block by block in float32.

    Cosines from it are off by less than 1e-6 / q, q being the length of the mean over its length
    if all unit updates stood at right angles."""
    C = len(U)
    gram = torch.zeros(C, C, dtype=torch.float64)
    for part in U.split(WIDTH, dim=1):
        gram += part @ part.T
    return gram


def _is_sound(gram):
    """Whether float32 was enough for these products."""
    if not bool((gram.diagonal() > FAINT).all()):
        return False
    return bool(gram.isfinite().all())


def _by_products(gram, r, leave_one_out):
    """The cosines: the mean's products and its length are sums of inner products.

    None if updates cancel to less than a tenth, when rounding would show."""
    C = len(r)
    scale = gram.diagonal().rsqrt()
    # (C, C): the cosines of any two.
    unit = gram * scale[:, None] * scale
    # Row n holds the weights in the mean for client n.
    weights = r.expand(C, -1)
    if leave_one_out:
        self_alone = torch.eye(C, dtype=torch.float64)
        weights = weights * (1 - self_alone)
    dots = (weights * unit).sum(dim=1)
    products = (weights @ unit) * weights
    square = products.sum(dim=1)
    # The mean's squared length, were all at right angles.
    apart = weights.square().sum(dim=1)
    if bool((square < 1e-2 * apart).any()):
        return None
    psi = dots / square.clamp(min=1e-24).sqrt()
    return torch.where(apart > 0, psi, 0.0)


# --- two passes: lengths, then the mean ---

def _by_passes(U, r, leave_one_out):
    """The cosines from two passes over ``U (C, K)``, in float64."""
    norms = row_norms(U)
    moves = norms > 0
    inverse = 1 / norms.clamp(min=1e-300)
    scale = torch.where(moves, inverse, 0.0)
    # U . Delta_n by client, and |U|^2.
    dots = torch.zeros_like(r)
    square = torch.zeros((), dtype=torch.float64)
    for part in in_double(U):
        mean = (r * scale) @ part
        dots += part @ mean
        square += mean @ mean
    dots *= scale
    if leave_one_out:
        dots, square = _without_self(dots, square, r, moves)
    psi = dots / square.clamp(min=1e-24).sqrt()
    return torch.where(square > 1e-24, psi, 0.0)


def _without_self(dots, square, r, moves):
    """``(dots, squares)``, (C,) each, with the mean of the others in place of the mean."""
    own_square = r * r
    whole = square + own_square
    # |U - r_n u_n|^2, and u_n . (U - r_n u_n).
    squares = square - 2 * r * dots + own_square * moves
    # Of a client alone only rounding is left.
    squares = torch.where(squares > 1e-14 * whole, squares, 0.0)
    return dots - r * moves, squares


# --- under masks of the clients' own ---

def _held_cosines(updates, r, leave_one_out):
    """As ``cosines``, each client on its own entries; the mean is over each entry's holders."""
    C = len(updates.U)
    U = updates.U[:, : updates.trained]
    B = updates.B[:, : updates.trained]
    # As wide as those of in_double.
    width = max(1, BLOCK // max(C, 1))
    blocks = B.split(width, dim=1)
    scale = _held_scales(U, blocks)
    dots, squares = torch.zeros(2, C, dtype=torch.float64)
    for u, held in zip(in_double(U), blocks):
        held = held.double()
        # In the buffer of in_double: unit updates, 0 elsewhere.
        u.mul_(held).mul_(scale)
        total = r @ u
        share = r @ held
        # A mean for each client: of the other holders.
        if leave_one_out:
            total = total - r[:, None] * u
            share = share - r[:, None]
        mean = total / share.clamp(min=1e-12)
        mean = torch.where(share > 1e-12, mean, 0.0) * held
        dots += (u * mean).sum(dim=1)
        squares += mean.square().sum(dim=1)
    psi = dots / squares.clamp(min=1e-300).sqrt()
    return torch.where(squares > 1e-24, psi, 0.0)


def _held_scales(U, blocks):
    """float64 (C, 1): one over the length of each update on its own entries; 0 for length 0."""
    squares = torch.zeros(len(U), dtype=torch.float64)
    for u, held in zip(in_double(U), blocks):
        own = u.mul_(held)
        squares += own.square().sum(dim=1)
    scale = squares.clamp(min=1e-300).rsqrt()
    return torch.where(squares > 0, scale, 0.0)[:, None]
