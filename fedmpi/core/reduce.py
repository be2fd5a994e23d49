"""From a cohort's updates to one step of the global model."""

import numpy as np
import torch

from fedmpi.core.support import leading

BLOCK = 1 << 18          # values that are worked on at a time: what a core's cache holds


def mean(updates, weights, rho=0.0, clip=0.0):
    """float32 (K,): the mean update, each entry over the clients that hold it; (M, K) for weights (M, C).

    ``sum_n w_n U_nj / max(sum_n w_n B_nj, rho)``: with rho = 0 a missing entry is no vote, with rho = 1 it is a vote
    for no change. Where nobody holds an entry the step is 0, as U is. Without B every client holds every entry. Updates
    of trained parameters longer than ``clip`` times the median norm (0: none) are shrunk to that, their votes stay.
    Cost: a pass over U and B, and one over the updates that are clipped.
    """
    step = _clipped(updates, weights, clip) if clip else weights.float() @ updates.U
    if updates.B is None:
        return step
    return step.div_(held_shares(updates.B, weights.float()).clamp_(min=max(rho, 1e-12)))


def held_shares(B, w):
    """float32 (K,), or (M, K): ``sum_n w_n B_nj``, the weight of those that hold each entry."""
    share = torch.empty(*w.shape[:-1], B.shape[1])
    bits = B.view(torch.uint8)                             # bools convert at a quarter of the speed
    for part, out in zip(bits.split(_width(B), dim=1), share.split(_width(B), dim=-1)):
        out.copy_(w @ part.float())
    return share


def _clipped(updates, weights, factor):
    """``weights @ U`` with rows that are too long shrunk. Norms and product come from one pass, in which rows that look
    long by their first columns wait: taken away again, an outlier would leave its rounding errors behind."""
    if weights.ndim == 2:
        return _scaled(updates, weights, clip_scales(near_norms(updates.U[:, : updates.trained]), weights, factor))
    U, C, width = updates.U[:, : updates.trained], len(weights), max(1, _width(updates.U) // 2)
    looks = clip_scales(near_norms(U[:, :width]), weights, (1 + factor) / 2)
    waits = torch.zeros(C, dtype=torch.bool) if looks is None else looks < 1
    now, step = torch.where(waits, 0.0, weights).float(), torch.empty(updates.U.shape[1])
    squares = np.zeros(C)
    for part, out in zip(U.split(width, dim=1), step[: updates.trained].split(width)):
        torch.mv(part.t(), now, out=out)                   # brings the block to the cache
        squares += _squares(part)
    scale = clip_scales(torch.from_numpy(squares).sqrt(), weights, factor)
    scaled = weights if scale is None else weights * scale
    if bool((scaled[~waits] != weights[~waits]).any()):    # it did not look that long
        return _scaled(updates, weights, scale)
    step[updates.trained:] = weights.float() @ updates.U[:, updates.trained:]
    for row in torch.nonzero(waits).flatten().tolist():
        step[: updates.trained].add_(U[row], alpha=float(scaled[row]))
    return step


def _scaled(updates, weights, scale):
    """``weights @ U``, updates of trained parameters times ``scale``, of the weights' shape; None: as they are."""
    if scale is None:
        return weights.float() @ updates.U
    step = (weights * scale).float() @ updates.U
    if updates.trained < updates.U.shape[1]:
        step[..., updates.trained:] = weights.float() @ updates.U[:, updates.trained:]
    return step


def on_support(values, support, P):
    """(P,): ``values (K,)`` at the positions ``support (K,)``, 0 elsewhere: what a server remembers of kept weights, so
    that a weight that is pruned loses it."""
    return torch.zeros(P).index_copy_(0, support.long(), values)


def moved(x, support, step):
    """A copy of ``x (P,)`` with ``step (K,)`` added on ``support``; (M, P) for steps (M, K)."""
    if step.ndim > 1 or not leading(support):
        return x.expand(*step.shape[:-1], -1).index_add(-1, support, step)
    after = x.clone()
    after[: len(step)] += step
    return after


def average(state, x, updates, weights):
    """FedAvg's merge: ``(state, x)`` moved by the mean update."""
    return state, moved(x, updates.support, mean(updates, weights))


def in_double(U):
    """The columns of ``U (C, K)`` as float64, block by block in one buffer."""
    buffer = torch.empty(len(U), min(_width(U), U.shape[1]), dtype=torch.float64)
    for columns in U.split(_width(U), dim=1):
        yield buffer[:, : columns.shape[1]].copy_(columns)


def _width(U):
    """How many columns of ``U (C, K)`` make a block."""
    return max(1, BLOCK // max(len(U), 1))


def row_norms(U):
    """float64 (C,): the lengths of the rows."""
    squares = (torch.linalg.vecdot(part, part) for part in in_double(U))
    return sum(squares, torch.zeros(len(U), dtype=torch.float64)).sqrt()


def near_norms(U):
    """float64 (C,): the lengths of the rows of ``U (C, K)`` to seven digits, by squares in float32 that are summed up
    in float64 block by block: at reading speed. Lengths below 1e-17 come out as 0."""
    return torch.from_numpy(sum(map(_squares, U.split(_width(U), dim=1)), np.zeros(len(U)))).sqrt()


def _squares(part):
    """The array float32 (C,) of the squared lengths of a block's rows."""
    rows = part.numpy()
    return np.matmul(rows[:, None, :], rows[:, :, None])[:, 0, 0]


def clip_scales(norms, weights, factor):
    """float64 of the shape of ``weights``, (C,) or (M, C): what limits updates of ``norms (C,)`` to ``factor`` times
    the median norm of those that take part; None where nothing is too long."""
    if weights.ndim == 1:
        limit = factor * norms.median()
    else:                                                  # members only: a coalition a row
        limit = factor * torch.where(weights > 0, norms, torch.nan).nanmedian(dim=1, keepdim=True).values
    scale = torch.where(norms > limit, limit / norms.clamp(min=1e-30), 1.0)
    return None if bool((scale == 1).all()) else scale
