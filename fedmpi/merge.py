"""From a cohort's updates to one step of the global model."""

import torch

BLOCK = 1 << 18          # values that are worked on at a time: what a core's cache holds


def mean(updates, weights, rho=0.0, scale=None):
    """float32 (K,): the mean update, each entry over the clients that hold it; (M, K) for weights (M, C).

    ``sum_n w_n B_nj U_nj / max(sum_n w_n B_nj, rho)``: with rho = 0 a missing entry is no vote, with rho = 1 it is a
    vote for no change. Where nobody holds an entry the step is 0. Without B every client holds every entry. ``scale``,
    of the shape of the weights, shrinks updates of trained parameters and leaves their votes as they are. Cost: a pass
    over U and B.
    """
    w, v = weights.float(), (weights if scale is None else weights.float() * scale.float()).float()
    if updates.B is None:
        step = v @ updates.U
        if scale is not None and updates.trained < updates.U.shape[1]:
            step[..., updates.trained:] = w @ updates.U[:, updates.trained:]
        return step
    step, width = torch.empty(*w.shape[:-1], updates.U.shape[1]), _width(updates.U)
    for start in _starts(updates, width):
        columns = slice(start, min(start + width, updates.trained if start < updates.trained else step.shape[-1]))
        held = updates.B[:, columns].float()
        share = w @ held
        total = (v if start < updates.trained else w) @ held.mul_(updates.U[:, columns])
        step[..., columns] = torch.where(share > 0, total.div_(share.clamp_(min=max(rho, 1e-12))), 0.0)
    return step


def _starts(updates, width):
    """Where blocks of columns begin: trained ones first, none of them with running statistics."""
    return [*range(0, updates.trained, width), *range(updates.trained, updates.U.shape[1], width)]


def moved(x, support, step):
    """A copy of ``x (P,)`` with ``step (K,)`` added on ``support``; (M, P) for steps (M, K)."""
    return x.expand(*step.shape[:-1], -1).index_add(-1, support, step)


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
    return sum((torch.linalg.vecdot(part, part) for part in in_double(U)), torch.zeros(len(U), dtype=torch.float64)).sqrt()


def near_norms(U):
    """float64 (C,): the lengths of the rows of ``U (C, K)`` to seven digits, by squares in float32 that are summed up
    in float64 block by block: at reading speed. Lengths below 1e-17 come out as 0."""
    blocks = (torch.linalg.vector_norm(part, dim=1).double().square() for part in U.split(_width(U), dim=1))
    return sum(blocks, torch.zeros(len(U), dtype=torch.float64)).sqrt()


def clip_scales(updates, weights, factor):
    """float64 of the shape of ``weights``, (C,) or (M, C): what limits every update's norm to ``factor`` times the median
    norm of those that take part; None where nothing is too long, or ``factor`` is 0."""
    if not factor:
        return None
    norms = near_norms(updates.U[:, : updates.trained])
    if weights.ndim == 1:
        limit = factor * norms.median()
    else:                                                  # members only: a coalition a row
        limit = factor * torch.where(weights > 0, norms, torch.nan).nanmedian(dim=1, keepdim=True).values
    scale = torch.where(norms > limit, limit / norms.clamp(min=1e-30), 1.0)
    return None if bool((scale == 1).all()) else scale
