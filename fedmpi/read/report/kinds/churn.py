"""How the mask moved: the share of its entries flipped in each round."""

import numpy as np

from fedmpi.read.report import draw as drawing
from fedmpi.read.report.kinds.picture import prefixes, sentence
from fedmpi.read.report.series import Line


def find(groups):
    """A Line a group, the mean over its seeds; None if a run has not recorded it, or no mask ever
    moved."""
    lines = []
    for group in groups:
        runs = [run for run in group.runs.values() if len(run.ends)]
        if not all(map(_is_recorded, runs)):
            return None
        if runs:
            lines.append(_mean_line(group.label, runs))
    if any(line.y.any() for line in lines):
        return lines
    return None


def _is_recorded(run):
    return "mask_changed" in run.rounds and "prunable" in run.attrs


def _mean_line(label, runs):
    """The mean over the rounds played by all of the runs, in percent of the prunable weights."""
    # Seeds may have ended in different rounds.
    T = min(len(run.ends) for run in runs)
    percents = []
    for run in runs:
        flipped = run.rounds["mask_changed"][:T]
        percents.append(100 * flipped / run.attrs["prunable"])
    rounds = np.arange(T) + 1.0
    return Line(label, rounds, np.mean(percents, axis=0))


def draw(place, lines):
    drawing.stems(place.subplots(), lines, "round", "mask entries flipped (%)")


def say(lines):
    parts = []
    for name, line in zip(prefixes(lines), lines):
        parts.append(name + _course(line))
    return ("Share of the mask's entries that a round's pruning and growing flipped. "
            f"{sentence(parts)}.")


def _course(line):
    num_moved = np.count_nonzero(line.y)
    words = f"in {num_moved} of {len(line.y)} rounds"
    if not num_moved:
        return words
    total, largest = line.y.sum(), line.y.max()
    round = line.x[line.y.argmax()]
    return (f"{words}, {total:.3g} % of the prunable weights in all, most in round {round:.0f} "
            f"({largest:.3g} %)")
