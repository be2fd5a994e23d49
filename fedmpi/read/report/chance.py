"""Runs that have learned nothing: they never did better than naming the most frequent class whatever the input."""

import math
from typing import NamedTuple

import numpy as np

from fedmpi.read.headline import headline

MARGIN = 0.2                  # of the accuracy of guessing, or of its error, whichever is less: beyond it is learning


class Stuck(NamedTuple):
    """The runs of one set-up that never left chance: ``stuck`` of ``known``, the ``best`` test accuracy among them, and
    that of ``guessing``."""

    stuck: int
    known: int
    best: float
    guessing: float


def guessing(run):
    """The share of the most frequent class: of the test set where the run has recorded it, else of the clients' true
    labels; NaN where it tells neither, and where another metric than accuracy is the headline."""
    if not headline(run).share:
        return math.nan
    counts = (run.attrs.get("inputs") or {}).get("test_labels")
    for name in ("true_labels", "labels"):
        if counts is None and name in run.population:
            counts = run.population[name].sum(axis=0)
    return math.nan if counts is None or not np.sum(counts) else float(np.max(counts) / np.sum(counts))


def left_chance(run):
    """Whether the run's test accuracy ever was clearly above that of guessing: for ten classes of equal size, 1.2 times
    it. None where nobody can tell."""
    share, best = guessing(run), best_accuracy(run)
    if math.isnan(share) or math.isnan(best):
        return None
    return best > share + MARGIN * min(share, 1 - share) * (1 + 1e-12)


def best_accuracy(run):
    """The highest test accuracy of all rounds, NaN where none was evaluated. It selects nothing."""
    values = run.rounds.get("accuracy", np.empty(0))
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else math.nan


def stuck(group):
    """The Stuck of a Group, None where all of its runs have learned something, or none can be judged."""
    judged = {path: left_chance(run) for path, run in group.runs.items()}
    runs = [group.runs[path] for path, left in judged.items() if left is False]
    if not runs:
        return None
    known = sum(left is not None for left in judged.values())
    return Stuck(len(runs), known, max(map(best_accuracy, runs)), max(map(guessing, runs)))


def stuck_text(label, found):
    """``fedavg (2 of 3 runs), at best 0.104 where guessing has 0.100``."""
    some = f" ({found.stuck} of {found.known} runs)" if found.known > 1 else ""
    return f"{label}{some}, at best {found.best:.3f} where guessing has {found.guessing:.3f}"
