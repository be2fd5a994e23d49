"""Median: each coordinate moves by the weighted median of its updates (arXiv 1803.01498).

    x_j <- x_j + (lower_j + upper_j) / 2

lower and upper are the ends of the weighted median: the values with at most half of the holders'
weight below and at most half above. With equal weights that is the plain median, the mean of the
two middle values for an even count. A client's weight is how many clients it stands for: 0 is no
vote, and a client with more than half decides alone.

Only clients that hold an entry vote on it; without a holder it does not move. Running statistics
are coordinates like all others. Cost: a sort of C values a coordinate (0.3 s for C = 32, 600,000
weights).
"""

import numpy as np
import torch

from fedmpi.core.reduce import moved
from fedmpi.core.parts import Strategy
from fedmpi.methods.strategies.fedavg import stateless

# Weights are rounded: a sum that differs from one half by less, relatively, is one half.
EVEN = 1e-9


def median():
    """Weighted median of every coordinate.

    Paper: Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
        Rates", arXiv 1803.01498.
    Up: the kept values of the update, as FedAvg, one by one: workers may not add them up.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy median --fault sign-flip:share=0.2
    """
    return Strategy(
        stateless,
        merge,
        # The rule itself mistrusts: no scores unless somebody asks for them.
        contribution="uniform",
        notes=outvoting,
    )


def outvoting(facts):
    """``notes`` of rules by which a majority outvotes bad clients: there must be one."""
    if facts.cohort < 3:
        yield (f"of {facts.cohort} answers a merge none can be outvoted, so that it protects from "
               "no client; merge 3 or more")


def merge(state, x, updates, weights):
    """The state as it is, and ``x (P,)`` moved by the median of every coordinate."""
    step = by_column(updates, weights, middle)
    return state, moved(x, updates.support, step)


def middle(values, weights):
    """float64 (k,): the weighted median of each row, a ``rule`` of ``by_column``."""
    up_to_here = weights.cumsum(dim=1)
    half = up_to_here[:, -1:] / 2
    before_lower = up_to_here < half * (1 - EVEN)
    before_upper = up_to_here <= half * (1 + EVEN)
    last = values.shape[1] - 1
    lower = before_lower.sum(dim=1, keepdim=True)
    upper = before_upper.sum(dim=1, keepdim=True).clamp(max=last)
    lower_end = values.gather(1, lower)
    upper_end = values.gather(1, upper)
    both = lower_end.double() + upper_end
    return both.flatten() / 2


def by_column(updates, weights, rule, block=1 << 12):
    """float32 (K,): the step by ``rule`` of each column's votes; 0 without a vote.

    ``rule(values (k, C) float32, weights (k, C) float64) -> (k,)`` sees up to ``block`` columns,
    one a row: the votes ascending and their weights, then zeros for clients without the entry or
    without weight. Equal votes stand in order of their weights, so that the order of the
    clients plays no part.
    """
    rows = weights.argsort(stable=True)
    rows = rows[weights[rows] > 0]
    voters = updates.rows(rows)
    votes = voters.U
    # Infinite values sort behind all votes.
    if voters.B is not None:
        votes = votes.masked_fill(~voters.B, torch.inf)
    blocks = votes.split(block, dim=1)
    steps = [_decided(columns, weights[rows], rule) for columns in blocks]
    return torch.cat(steps).float()


def _decided(columns, weights, rule):
    """The step (k,) of a block ``columns (C, k)``, infinite where a client holds no entry."""
    values, voter = ascending(columns.T.contiguous())
    held = values.isfinite()
    votes = values.where(held, 0.0)
    step = rule(votes, weights[voter] * held)
    return torch.where(held[:, 0], step, 0.0)


def ascending(values):
    """``(values, columns)`` of each row of ``values (k, C)`` float32 without NaN, sorted.

    Equal values stand by column. It sorts 64-bit keys of value and column, each of which is there
    once: numpy sorts integers with vector instructions, several times faster than torch sorts
    values with their positions, to the same order on every machine.
    """
    bits = values.view(torch.int32)
    # As integers, negative floats stand in reverse: flip all their bits but the sign.
    sign = bits >> 31
    bits = bits ^ (sign & 0x7FFFFFFF)
    columns = torch.arange(values.shape[1])
    # The value in the upper 32 bits, its column in the lower ones.
    keys = (bits.long() << 32) | columns
    sorted_keys = np.sort(keys.numpy(), axis=1)
    columns = torch.from_numpy(sorted_keys) & 0xFFFFFFFF
    return values.gather(1, columns), columns
