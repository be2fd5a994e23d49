"""Curves of runs against their cost (rounds, bytes sent, training FLOPs, time), and the value of a
budget."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.headline import headline
from fedmpi.read.report.metrics import FLOPS

PREFIXES = ("", "k", "M", "G", "T", "P", "E")


class Line(NamedTuple):
    """One line of a picture: ``x (n,)``, ``y (n,)``, and, of several seeds, the lowest and highest
    at each point."""

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def runs_of(groups):
    """[Run] of all Groups, in their order."""
    return [run for group in groups for run in group.runs.values()]


def spent(run, axis):
    """(T,) float64 cost of a run by the end of each round, on one ``axis``: ``rounds``, ``bytes``
    up and down, training ``flops``, ``virtual`` or own ``seconds``. None if it is not recorded, or
    time is not simulated."""
    if axis == "rounds":
        return np.arange(1.0, len(run.ends) + 1)
    if axis == "bytes":
        return _bytes(run.rounds)
    if axis == "flops":
        return _summed(run.rounds, flops_column(run))
    if axis == "virtual":
        return _virtual_seconds(run.rounds)
    return _summed(run.rounds, "round_s")


def _bytes(rounds):
    up, down = rounds.get("up_bytes"), rounds.get("down_bytes")
    if up is None or down is None:
        return None
    return np.cumsum(up.astype(float) + down)


def _virtual_seconds(rounds):
    seconds = rounds.get("sim_total_s")
    if seconds is None or not len(seconds):
        return None
    # Zeros: time was not simulated.
    if seconds[-1] <= 0:
        return None
    return seconds.astype(float)


def _summed(rounds, column):
    if column not in rounds:
        return None
    return np.cumsum(rounds[column])


def flops_column(run):
    """The column of training FLOPs for pictures and comparisons: the run's first one, or None."""
    for column in FLOPS:
        if column in run.rounds:
            return column
    return None


def evaluated(run, column):
    """Indices of the rounds with a finite ``column``."""
    values = run.rounds.get(column, np.empty(0))
    return np.flatnonzero(np.isfinite(values))


def mean_lines(groups, column, axis):
    """[Line] of ``column`` against ``axis``, one for each group with an evaluation of it. Of
    several seeds it is the mean over the rounds evaluated by all of them, with the lowest and
    highest. None if one of these runs has not recorded the axis, or no line is left."""
    lines = []
    for group in groups:
        runs = [run for run in group.runs.values() if len(evaluated(run, column))]
        if not runs:
            continue
        line = _mean_line(group.label, runs, column, axis)
        if line is None:
            return None
        lines.append(line)
    return lines or None


def _mean_line(label, runs, column, axis):
    costs = [spent(run, axis) for run in runs]
    if any(cost is None for cost in costs):
        return None
    rounds = _common_rounds(runs, column)
    if not len(rounds):
        return None
    x = np.stack([cost[rounds] for cost in costs])
    y = np.stack([run.rounds[column][rounds] for run in runs])
    line = Line(label, x.mean(axis=0), y.mean(axis=0))
    if len(runs) == 1:
        return line
    lowest, highest = y.min(axis=0), y.max(axis=0)
    return line._replace(low=lowest, high=highest)


def _common_rounds(runs, column):
    """(n,) the rounds evaluated by all runs, from 0."""
    by_run = [set(evaluated(run, column).tolist()) for run in runs]
    common = set.intersection(*by_run)
    return np.array(sorted(common), int)


def within(run, axis, budget):
    """The headline of the last evaluated round within ``budget`` of ``axis``, NaN if there is none.

    Nothing is interpolated: a user would hold this model then."""
    column = headline(run).name
    rounds = evaluated(run, column)
    if not len(rounds):
        return np.nan
    cost = spent(run, axis)[rounds]
    # The budget itself comes from sums of floats: a rounding error must not exclude its own round.
    affordable = rounds[cost <= budget * (1 + 1e-12)]
    if not len(affordable):
        return np.nan
    return float(run.rounds[column][affordable[-1]])


def to_reach(run, axis, target):
    """The cost on ``axis`` of the first evaluated round with a headline at ``target`` or better;
    NaN if none is.

    Curves are not smoothed."""
    leading = headline(run)
    rounds = evaluated(run, leading.name)
    values = run.rounds[leading.name][rounds]
    rounds_there = rounds[leading.reached(values, target)]
    cost = spent(run, axis)
    if cost is None or not len(rounds_there):
        return np.nan
    first = rounds_there[0]
    return float(cost[first])


def prefix(largest):
    """``(factor, prefix)`` of the decimal unit that gives ``largest`` one to three digits before
    the point."""
    power = 0
    # From 999.5 on, three digits round to 1000.
    while abs(largest) >= 999.5 and power < len(PREFIXES) - 1:
        largest /= 1000
        power += 1
    return 1000.0 ** power, PREFIXES[power]
