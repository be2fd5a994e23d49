"""Curves of groups of runs: a column of the rounds against rounds, bytes, FLOPs or time."""

from typing import Callable, NamedTuple

import numpy as np

from fedmpi.read.headline import common_headline
from fedmpi.read.report import draw as drawing
from fedmpi.read.report.kinds.picture import capitalized, prefixes, sentence
from fedmpi.read.report.metrics import FLOPS, chosen
from fedmpi.read.report.pictures import curves
from fedmpi.read.report.series import Line, flops_column, mean_lines, prefix, runs_of, spent
from fedmpi.read.report.text import human_bytes, human_flops, human_seconds

# The label of each axis, and its name in a sentence.
AXES = {
    "rounds": ("round", "round"),
    "bytes": ("sent, up and down", "bytes sent, up and down"),
    "flops": ("training", "training FLOPs"),
    "virtual": ("virtual time", "virtual time"),
    "seconds": ("time of the rounds", "the rounds' own time"),
}
UNITS = {"bytes": "B", "flops": "FLOP", "virtual": "s", "seconds": "s"}
# These two stand for the columns that the runs' task names.
HEADLINE, OWN_TESTS = "headline", "own tests"
# Sparsities within this range are drawn as the flat line that they are.
FLAT = 0.02


class Quantity(NamedTuple):
    """A column of the rounds, its name, and the best point of a curve of it."""

    column: str
    title: str
    # A word for the best point.
    turn: str
    # (n,) values -> the index of the best.
    pick: Callable


class Curves(NamedTuple):
    """Lines of one column, and the axis below them."""

    lines: list
    column: str
    axis: str
    xlabel: str
    # The axis in a sentence.
    by: str
    # A place on the axis -> its text.
    text: Callable
    # Whether a line is a mean of several seeds.
    seeds: bool
    # The name of the column.
    title: str = ""
    # A word for the best point, which is told beside the last one.
    turn: str = ""
    # Finds the best point.
    pick: Callable = np.nanargmax
    # The place of the round that validation selects, of one run alone.
    chosen: float | None = None
    frame: drawing.Frame = drawing.Frame()


def quantity_of(column, leading):
    """The ``Quantity`` of ``column`` in runs with the ``Headline`` ``leading``."""
    if column == "loss":
        return Quantity(column, f"test {leading.loss_text()}", "lowest", np.nanargmin)
    if column == "sparsity":
        return Quantity(column, "sparsity (fraction of zeros)", "highest", np.nanargmax)
    pick, turn, end = np.nanargmax, "highest", "maximum"
    if not leading.higher:
        pick, turn, end = np.nanargmin, "lowest", "minimum"
    if column == OWN_TESTS:
        mean_of_clients = leading.own[0]
        return Quantity(mean_of_clients, f"{leading.word} on clients' own tests", turn, pick)
    # Nobody may take it for the best model: the test set selects nothing.
    turn = f"the test set's own {end}"
    return Quantity(leading.name, f"test {leading.word}", turn, pick)


def find_curves(column, axis):
    """``find`` of the groups' curves of ``column`` against ``axis``.

    A single run also shows its validation set, a single group its worst clients."""
    def find(groups):
        leading = common_headline(runs_of(groups))
        quantity = quantity_of(column, leading)
        lines = mean_lines(groups, quantity.column, axis)
        if lines is None:
            return None
        best = None
        if column == OWN_TESTS and len(groups) == 1:
            lines = _mean_and_worst(groups[0], leading, axis)
        if column == HEADLINE and _is_one_run(groups):
            lines, best = _with_validation(groups[0], axis)
        return _scaled(lines, best, quantity, axis, groups)

    return find


def _is_one_run(groups):
    return len(groups) == 1 and len(groups[0].runs) == 1


def _mean_and_worst(group, leading, axis):
    """Two lines of the clients' own tests: the mean of all clients, and the worst tenth."""
    mean, _, worst = leading.own
    lines = []
    for label, column in (("mean of clients", mean), ("worst tenth", worst)):
        lines += mean_lines([group._replace(label=label)], column, axis)
    return lines


def _with_validation(group, axis):
    """The lines of a run's test and validation sets, and the place of its best round on the axis,
    or None."""
    run = next(iter(group.runs.values()))
    cost = spent(run, axis)
    lines = []
    for label, rounds, values in curves(run):
        # Rounds count from 1.
        lines.append(Line(label, cost[rounds - 1], values))
    best_round = chosen(run)
    if best_round is None:
        return lines, None
    return lines, float(cost[best_round])


def _scaled(lines, best, quantity, axis, groups):
    """The ``Curves`` of a quantity, with x in a unit for one to three digits before the point."""
    factor, letter = 1.0, ""
    if axis in ("bytes", "flops"):
        most = max(line.x.max() for line in lines)
        factor, letter = prefix(most)
    if best is not None:
        best = best / factor
    xlabel, by = AXES[axis]
    if axis in UNITS:
        xlabel = f"{xlabel} ({letter}{UNITS[axis]})"
    if axis == "flops":
        first = next(iter(groups[0].runs.values()))
        by = f"training FLOPs ({FLOPS[flops_column(first)]})"
    return Curves(
        lines=[line._replace(x=line.x / factor) for line in lines],
        column=quantity.column,
        axis=axis,
        xlabel=xlabel,
        by=by,
        text=_place_text(axis, factor),
        seeds=any(len(group.runs) > 1 for group in groups),
        title=quantity.title,
        turn=quantity.turn,
        pick=quantity.pick,
        chosen=best)


def _place_text(axis, factor):
    """``text(x)`` of a place on the axis in units of ``factor``."""
    if axis == "rounds":
        return lambda x: f"round {x:.0f}"
    if axis == "bytes":
        return lambda x: human_bytes(x * factor)
    if axis == "flops":
        return lambda x: human_flops(x * factor)
    return human_seconds


def draw_curves(place, curves):
    """Draws the ``Curves`` on a figure or a part of one."""
    ax = place.subplots()
    if curves.column == "sparsity":
        _keep_flat(ax, curves.lines)
    ylabel = curves.title
    # The line itself is called "test", beside one of the validation set.
    if curves.lines[0].label == "test":
        ylabel = ylabel.removeprefix("test ")
    # In virtual time, the model stays the same until the next merge.
    is_held = curves.axis == "virtual"
    drawing.lines(
        ax, curves.lines, curves.xlabel, ylabel, whole=curves.axis == "rounds", steps=is_held,
        frame=curves.frame)


def _keep_flat(ax, lines):
    """Widens the y axis around nearly constant sparsities, to show them as constant."""
    values = np.concatenate([line.y for line in lines])
    low, high = values.min(), values.max()
    if high - low < FLAT:
        bottom = max(low - 0.1, -0.02)
        top = min(high + 0.1, 1.02)
        ax.set_ylim(bottom, top)
        ax.set_autoscaley_on(False)


def say_curves(curves):
    """The ``Curves`` in words: the best and the last point of each line."""
    parts = []
    for name, line in zip(prefixes(curves.lines), curves.lines):
        parts.append(name + _course(curves, line))
    # A caption has no unit.
    title = curves.title.partition(" (")[0]
    words = f"{capitalized(title)} by {curves.by}. {sentence(parts)}."
    if curves.seeds:
        words += " Of several seeds the line is the mean, the band from the lowest to the highest."
    return words


def _course(curves, line):
    """The best point of a line and its last one, in words."""
    word, best = _turn(curves, line)
    last = len(line.y) - 1
    end = _point_text(curves, line, last)
    if best == last:
        return f"{word} {end}, the last"
    return f"{word} {_point_text(curves, line, best)}, then {end}"


def _point_text(curves, line, number):
    place = curves.text(line.x[number])
    return f"{line.y[number]:.3g} at {place}"


def _turn(curves, line):
    """``(word, index)`` of the point that a caption names beside a line's last one.

    Only validation may call a point the best: the test set selects nothing."""
    if curves.chosen is not None:
        distance = np.abs(line.x - curves.chosen)
        return "best by validation", int(np.argmin(distance))
    return curves.turn, int(curves.pick(line.y))


def say_sparsity(curves):
    """Curves of sparsity in words: the first and the last value of each line."""
    parts = []
    for name, line in zip(prefixes(curves.lines), curves.lines):
        first, last = line.y[0], line.y[-1]
        # Both would have the same three digits.
        if np.ptp(line.y) < 5e-4:
            parts.append(f"{name}{last:.3f} throughout")
        else:
            parts.append(f"{name}from {first:.3f} to {last:.3f}")
    return f"Sparsity, the fraction of zeros among prunable weights, by round. {sentence(parts)}."


def names_of_curves(curves):
    """The number of names above the picture of ``Curves``."""
    if not curves.frame.named:
        return 0
    return drawing.names_above(curves.lines)
