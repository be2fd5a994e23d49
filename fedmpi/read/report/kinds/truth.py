"""Each client's contribution in the last quarter of the rounds, against the truth about the
client."""

import numpy as np

from fedmpi.core.words import plural
from fedmpi.read.report.pictures import draw_shares, shares
from fedmpi.read.report.statistics import spearman, tied


def find(run):
    """``(run, its shares)``; None if the run has no scores."""
    points = shares(run)
    if points is None:
        return None
    return run, points


def draw(place, numbers):
    run, points = numbers
    draw_shares(place.subplots(), run, points)


def say(numbers):
    _, (title, label, x, y) = numbers
    words = f"Each client's {title}, against {label}: {plural(len(x), 'client')}."
    if len(x) < 2:
        return words
    rho = spearman(tied(y), tied(x))
    # One side does not vary.
    if np.isnan(rho):
        return words
    return f"{words} Spearman {rho:+.2f}."
