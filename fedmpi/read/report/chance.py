"""Runs that learned nothing: their models never were better than naming the most frequent class."""

import math
from typing import NamedTuple

import numpy as np

from fedmpi.core.words import plural
from fedmpi.read.headline import headline

# Learning is beyond this share of the accuracy of guessing, or of its error, whichever is less.
MARGIN = 0.2


class Stuck(NamedTuple):
    """The stuck runs of one set-up: they never left chance."""

    # Number of these runs.
    stuck: int
    # Runs that can be judged.
    known: int
    # Highest test accuracy of the stuck runs.
    best: float
    # Accuracy of guessing.
    guessing: float


def guessing(run):
    """The share of the most frequent class: of the recorded test set, else of the clients' true
    labels.

    NaN if neither is recorded, or if another metric than accuracy is the headline."""
    if not headline(run).share:
        return math.nan
    counts = _label_counts(run)
    if counts is None or not np.sum(counts):
        return math.nan
    return float(np.max(counts) / np.sum(counts))


def _label_counts(run):
    """(K,) samples of each class, or None."""
    inputs = run.attrs.get("inputs") or {}
    counts = inputs.get("test_labels")
    if counts is not None:
        return counts
    for name in ("true_labels", "labels"):
        if name in run.population:
            return run.population[name].sum(axis=0)
    return None


def left_chance(run):
    """Whether the run's test accuracy ever was clearly above guessing: 1.2 times it for ten classes
    of equal size.

    None if nobody can tell."""
    share = guessing(run)
    best = best_accuracy(run)
    if math.isnan(share) or math.isnan(best):
        return None
    margin = MARGIN * min(share, 1 - share)
    return best > share + margin * (1 + 1e-12)


def best_accuracy(run):
    """The highest test accuracy of all rounds, NaN without an evaluated one. It selects nothing."""
    values = run.rounds.get("accuracy", np.empty(0))
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan
    return float(finite.max())


def stuck(group):
    """The Stuck of a Group; None if all of its runs have learned something, or none can be
    judged."""
    runs = []
    num_judged = 0
    for run in group.runs.values():
        left = left_chance(run)
        num_judged += left is not None
        if left is False:
            runs.append(run)
    if not runs:
        return None
    best = max(map(best_accuracy, runs))
    return Stuck(len(runs), num_judged, best, max(map(guessing, runs)))


def stuck_text(label, found):
    """``fedavg (2 of 3 runs), at best 0.104 where guessing has 0.100``."""
    some = ""
    if found.known > 1:
        some = f" ({found.stuck} of {plural(found.known, 'run')})"
    return f"{label}{some}, at best {found.best:.3f} where guessing has {found.guessing:.3f}"
