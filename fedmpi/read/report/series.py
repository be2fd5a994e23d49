"""Curves of runs against what was spent: rounds, bytes sent, training FLOPs, time; and what a budget buys."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.headline import headline
from fedmpi.read.report.metrics import FLOPS

PREFIXES = ("", "k", "M", "G", "T", "P", "E")


class Line(NamedTuple):
    """One line of a picture: ``x (n,)``, ``y (n,)``, and, of several seeds, the lowest and highest at each point."""

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def spent(run, axis):
    """(T,) float64 what the run had spent by the end of each round: ``rounds``, ``bytes`` up and down, training
    ``flops``, ``virtual`` or own ``seconds``; None where it is not recorded, or time is not simulated."""
    rounds = run.rounds
    if axis == "rounds":
        return np.arange(1.0, len(run.ends) + 1)
    if axis == "bytes":
        known = "up_bytes" in rounds and "down_bytes" in rounds
        return np.cumsum(rounds["up_bytes"].astype(float) + rounds["down_bytes"]) if known else None
    if axis == "flops":
        column = flops_column(run)
        return None if column is None else np.cumsum(rounds[column])
    if axis == "virtual":
        seconds = rounds.get("sim_total_s", np.zeros(0))
        return seconds.astype(float) if len(seconds) and seconds[-1] > 0 else None
    return np.cumsum(rounds["round_s"]) if "round_s" in rounds else None


def flops_column(run):
    """The column of training FLOPs that pictures and comparisons use, the first that the run has, or None."""
    return next((column for column in FLOPS if column in run.rounds), None)


def evaluated(run, column):
    """Indices of the rounds in which ``column`` is known."""
    return np.flatnonzero(np.isfinite(run.rounds.get(column, np.empty(0))))


def mean_lines(groups, column, axis):
    """The Line of ``column`` against ``axis`` of each group that has a round in which it is known: of several seeds the
    mean over the rounds that all of these have evaluated, with the lowest and highest. None where one of these runs has
    not recorded the axis, or nothing is left."""
    known = [(group, [run for run in group.runs.values() if len(evaluated(run, column))]) for group in groups]
    found = [_mean_line(group.label, runs, column, axis) for group, runs in known if runs]
    return None if None in found else found or None


def _mean_line(label, runs, column, axis):
    common = set.intersection(*(set(evaluated(run, column).tolist()) for run in runs))
    costs = [spent(run, axis) for run in runs]
    if not common or any(cost is None for cost in costs):
        return None
    at = np.array(sorted(common))
    x, y = (np.stack([each[at] for each in values]) for values in (costs, [run.rounds[column] for run in runs]))
    band = (y.min(axis=0), y.max(axis=0)) if len(runs) > 1 else (None, None)
    return Line(label, x.mean(axis=0), y.mean(axis=0), *band)


def within(run, axis, budget):
    """The last value of the headline that was known when ``budget`` of ``axis`` had been spent, NaN for none: what one
    would hold then. Nothing is interpolated."""
    column = headline(run).name
    at = evaluated(run, column)
    at = at[spent(run, axis)[at] <= budget * (1 + 1e-12)] if len(at) else at
    return float(run.rounds[column][at[-1]]) if len(at) else np.nan


def to_reach(run, axis, target):
    """What had been spent of ``axis`` by the first evaluated round with the headline at ``target`` or better; NaN where
    it never was. Curves are not smoothed."""
    column = headline(run).name
    at = evaluated(run, column)
    at = at[headline(run).reached(run.rounds[column][at], target)]
    cost = spent(run, axis)
    return float(cost[at[0]]) if len(at) and cost is not None else np.nan


def prefix(largest):
    """``(factor, prefix)`` of the decimal unit in which ``largest`` has one to three digits before the point."""
    power = 0
    while abs(largest) >= 999.5 and power < len(PREFIXES) - 1:
        largest, power = largest / 1000, power + 1
    return 1000.0 ** power, PREFIXES[power]
