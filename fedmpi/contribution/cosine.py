"""Cosine: how far a client's update points where the others point (CGSV, NeurIPS 2021; the thesis's score).

``psi_n = cos(u_n, U)`` with unit updates u_n and their mean ``U = sum_n r_n u_n`` under the present weights r. With
``leave_one_out`` the mean leaves the client itself out, ``cos(u_n, U - r_n u_n)``: otherwise ``cos(u_n, r_n u_n)``
is part of the score and large clients are rewarded for being large (methods 5.5). Sees: the updates, nothing else.
An update of norm 0 scores 0; running statistics of normalisation layers do not count; where clients hold different
masks a client is compared on the entries that it holds.

``mixing=clean`` (default): ``s <- memory s + (1 - memory) psi+``, ``psi+ = max(psi, 0) / sum``, and
``r ~ size^size_power * s^score_power``, used at once. ``mixing=thesis``: ``r <- norm(max(gamma_t r + (1 - gamma_t)
psi, floor))``, used from the next round on, the difference of scale between r and psi kept; ``schedule=thesis`` is
``gamma_t = 1 - (1 - gamma) / t``, ``constant`` the same gamma always; ``start`` is ``data`` (the shares of the data)
or ``zero`` (as the thesis's program, which then forgets the sizes after one round). gamma = 1 is FedAvg.
"""

import torch

from fedmpi.parts import Contribution
from fedmpi.weighting import clean, thesis_mixing


def cosine(leave_one_out: bool = False, mixing: str = "clean", memory: float = 0.9, size_power: float = 1.0,
           score_power: float = 1.0, gamma: float = 0.7, schedule: str = "constant", start: str = "data",
           floor: float = 1e-3):
    """Agreement with the weighted mean of unit updates."""
    if mixing not in ("clean", "thesis"):
        raise ValueError(f"mixing must be clean or thesis, got {mixing!r}")
    if mixing == "clean" and (gamma, schedule, start) != (0.7, "constant", "data"):
        raise ValueError("gamma, schedule and start belong to mixing=thesis; mixing=clean would ignore them")
    if mixing == "thesis" and (memory, size_power, score_power) != (0.9, 1.0, 1.0):
        raise ValueError("memory, size_power and score_power belong to mixing=clean; mixing=thesis would ignore them")
    if mixing == "clean":
        init, weigh = clean(memory, size_power, score_power, floor)
    else:
        init, weigh = thesis_mixing(gamma, schedule, start, floor)

    def score(state, cohort, utility, gen):
        r = state["weights"][cohort.clients]
        return cosines(cohort.updates, r / r.sum(), leave_one_out)

    return Contribution(init, score, weigh)


def loo_cosine(mixing: str = "clean", memory: float = 0.9, size_power: float = 1.0, score_power: float = 1.0,
               gamma: float = 0.7, schedule: str = "constant", start: str = "data", floor: float = 1e-3):
    """Agreement with the mean of the others: cosine without the self-term."""
    return cosine(True, mixing, memory, size_power, score_power, gamma, schedule, start, floor)


def cosines(updates, r, leave_one_out=False):
    """``psi (C,) float64`` of the updates under weights ``r (C,) float64``."""
    if updates.B is not None:
        return _held_cosines(updates, r, leave_one_out)
    gram = unit_gram(updates.U[:, : updates.trained])
    dots = gram @ r                                     # u_n . U
    square = r @ dots                                   # |U|^2
    if leave_one_out:
        square = square - 2 * r * dots + r * r * gram.diagonal()
        dots = dots - r * gram.diagonal()
    return torch.where(square > 1e-24, dots / square.clamp(min=1e-24).sqrt(), 0.0)


def unit_gram(U, block=1 << 16):
    """``(C, C) float64``: the inner products of the rows scaled to length 1, zero rows left at 0."""
    gram = torch.zeros(len(U), len(U), dtype=torch.float64)
    for columns in U.split(block, dim=1):
        part = columns.double()
        gram.addmm_(part, part.T)
    norms = gram.diagonal().sqrt()
    scale = torch.where(norms > 0, 1 / norms.clamp(min=1e-300), 0.0)
    return gram * scale[:, None] * scale


def _held_cosines(updates, r, leave_one_out):
    """As ``cosines``, each client on the entries that it holds; the mean is over each entry's holders."""
    U, B = updates.U[:, : updates.trained].double(), updates.B[:, : updates.trained]
    U = U * B
    u = U / U.norm(dim=1, keepdim=True).clamp(min=1e-300)
    total, share = r @ u, r @ B.double()
    psi = torch.zeros(len(u), dtype=torch.float64)
    for n in range(len(u)):
        held = B[n]
        others, weight = total[held], share[held]
        if leave_one_out:
            others, weight = others - r[n] * u[n, held], weight - r[n]
        mean = torch.where(weight > 1e-12, others / weight.clamp(min=1e-12), 0.0)
        norm = mean.norm()
        psi[n] = (u[n, held] @ mean) / norm if norm > 1e-12 else 0.0
    return psi
