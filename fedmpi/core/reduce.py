"""From a cohort's updates to one step of the global model."""

import numpy as np
import torch

from fedmpi.core.support import leading, positions_of

# Values that are worked on at a time: they stay in a core's cache.
BLOCK = 1 << 18


def mean(updates, weights, rho=0.0, clip=0.0):
    """float32 (K,): the mean update, each entry over its holders; (M, K) for weights (M, C).

    ``sum_n w_n U_nj / max(sum_n w_n B_nj, rho)``: with rho = 0 a missing entry is no vote, with
    rho = 1 it is a vote for no change. The step of an entry without holders is 0, as U is. Without
    B every client holds every entry. With ``sent``, which is part of B, it stands for B.

    Updates of trained parameters longer than ``clip`` times the median norm (0: none) are shrunk
    to that length; their votes stay. Cost: a pass over U and B, and one over clipped updates.
    """
    if clip:
        step = _clipped(updates, weights, clip)
    else:
        step = weights.float() @ updates.U
    voters = updates.B if updates.sent is None else updates.sent
    if voters is None:
        return step
    votes = holder_weights(voters, weights.float())
    return step.div_(votes.clamp_(min=max(rho, 1e-12)))


def holder_weights(B, w):
    """float32 (K,), or (M, K): ``sum_n w_n B_nj``, the weight of each entry's holders."""
    K = B.shape[1]
    share = torch.empty(*w.shape[:-1], K)
    # Bools convert at a quarter of the speed of bytes.
    bits = B.view(torch.uint8)
    width = _width(B)
    parts = bits.split(width, dim=1)
    shares = share.split(width, dim=-1)
    for part, out in zip(parts, shares):
        out.copy_(w @ part.float())
    return share


# --- long updates ---


def _clipped(updates, weights, factor):
    """``weights @ U`` with too long rows shrunk.

    Norms and product come from one pass. Rows probably above the limit, by their first columns,
    are added afterwards, already scaled: subtracted again, an outlier would leave its rounding
    errors behind.
    """
    U = updates.U[:, : updates.trained]
    if weights.ndim == 2:
        scale = clip_scales(near_norms(U), weights, factor)
        return _scaled(updates, weights, scale)

    width = max(1, _width(updates.U) // 2)
    waits = _probably_long(U[:, :width], weights, factor)
    present = torch.where(waits, 0.0, weights)
    step, norms = _product_and_norms(updates, present, width)
    scale = clip_scales(norms, weights, factor)
    scaled = weights
    if scale is not None:
        scaled = weights * scale
    counted = ~waits
    differs = scaled[counted] != weights[counted]
    if bool(differs.any()):
        # A long row did not look long by its first columns: do it again.
        return _scaled(updates, weights, scale)

    statistics = updates.U[:, updates.trained:]
    step[updates.trained:] = weights.float() @ statistics
    step_of_trained = step[: updates.trained]
    waiting = torch.nonzero(waits).flatten()
    for row in waiting.tolist():
        step_of_trained.add_(U[row], alpha=float(scaled[row]))
    return step


def _probably_long(columns, weights, factor):
    """bool (C,): the rows whose first ``columns (C, k)`` look above the limit."""
    scale = clip_scales(near_norms(columns), weights, (1 + factor) / 2)
    if scale is None:
        return torch.zeros(len(weights), dtype=torch.bool)
    return scale < 1


def _product_and_norms(updates, weights, width):
    """``(weights @ U (K,), norms (C,))``, of trained columns; the other columns are not set."""
    U = updates.U[:, : updates.trained]
    weights = weights.float()
    step = torch.empty(updates.U.shape[1])
    step_of_trained = step[: updates.trained]
    squares = np.zeros(len(weights))
    blocks = zip(U.split(width, dim=1), step_of_trained.split(width))
    for part, out in blocks:
        # The product brings the block to the cache.
        torch.mv(part.t(), weights, out=out)
        squares += _squares(part)
    return step, torch.from_numpy(squares).sqrt()


def _scaled(updates, weights, scale):
    """``weights @ U``, updates of trained parameters times ``scale``; None: as they are.

    The scale has the weights' shape.
    """
    if scale is None:
        return weights.float() @ updates.U
    scaled = weights * scale
    step = scaled.float() @ updates.U
    if updates.trained < updates.U.shape[1]:
        statistics = updates.U[:, updates.trained:]
        step[..., updates.trained:] = weights.float() @ statistics
    return step


def clip_scales(norms, weights, factor):
    """float64 of the shape of ``weights``, (C,) or (M, C): the scales that limit long updates.

    The limit is ``factor`` times the median of the members' ``norms (C,)``. None: no update is
    longer.
    """
    if weights.ndim == 1:
        limit = factor * norms.median()
    else:
        # Each row is a coalition: the median over its members.
        members = torch.where(weights > 0, norms, torch.nan)
        limit = factor * members.nanmedian(dim=1, keepdim=True).values
    shrinks = limit / norms.clamp(min=1e-30)
    scale = torch.where(norms > limit, shrinks, 1.0)
    if bool((scale == 1).all()):
        return None
    return scale


# --- steps ---


def on_support(values, support, P):
    """(P,): ``values (K,)`` at the positions ``support (K,)``, 0 elsewhere.

    A server keeps its memory of kept weights this way: a pruned weight loses it.
    """
    whole = torch.zeros(P)
    return whole.index_copy_(0, support.long(), values)


def moved(x, support, step):
    """A copy of ``x (P,)`` with ``step (K,)`` added on ``support``; (M, P) for steps (M, K)."""
    has_rows = step.ndim > 1
    if has_rows or not leading(support):
        models = x.expand(*step.shape[:-1], -1)
        return models.index_add(-1, positions_of(support), step)
    # The first positions need no index.
    after = x.clone()
    after[: len(step)] += step
    return after


def average(state, x, updates, weights):
    """FedAvg's merge: ``(state, x)`` moved by the mean update."""
    step = mean(updates, weights)
    return state, moved(x, updates.places, step)


# --- rows in blocks of columns ---


def in_double(U):
    """The columns of ``U (C, K)`` as float64, block by block in one buffer."""
    C, K = U.shape
    width = _width(U)
    largest = min(width, K)
    buffer = torch.empty(C, largest, dtype=torch.float64)
    for columns in U.split(width, dim=1):
        block = buffer[:, : columns.shape[1]]
        yield block.copy_(columns)


def _width(U):
    """How many columns of ``U (C, K)`` make a block."""
    C = max(len(U), 1)
    return max(1, BLOCK // C)


def row_norms(U):
    """float64 (C,): the lengths of the rows."""
    squares = torch.zeros(len(U), dtype=torch.float64)
    for block in in_double(U):
        squares = squares + torch.linalg.vecdot(block, block)
    return squares.sqrt()


def near_norms(U):
    """float64 (C,): the lengths of the rows of ``U (C, K)`` to seven digits, at reading speed.

    Squares in float32 are summed up in float64 block by block. Lengths below 1e-17 come out as 0.
    """
    squares = np.zeros(len(U))
    for block in U.split(_width(U), dim=1):
        squares = squares + _squares(block)
    return torch.from_numpy(squares).sqrt()


def _squares(part):
    """The array float32 (C,) of the squared lengths of a block's rows."""
    rows = part.numpy()
    # Each row times itself, (C, 1, 1).
    squares = np.matmul(rows[:, None, :], rows[:, :, None])
    return squares[:, 0, 0]
