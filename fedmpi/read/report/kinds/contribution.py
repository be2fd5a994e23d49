"""Contributions round by round, of good and of bad clients."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.report import draw as drawing
from fedmpi.read.report.series import Line
from fedmpi.read.report.statistics import tied
from fedmpi.read.report.truth import faulty, is_bad, quality

# At most so many clients are drawn one by one.
SINGLE = 40
# A run is as long as so many windows of the moving mean.
WINDOWS = 12
# Characters of a label beside the axis.
ROOM = 30


class Contributions(NamedTuple):
    """Moving means of contributions."""

    # [(is it bad, x, y)] of each client, empty if there are too many.
    single: list
    # [Line] of good and bad clients.
    means: list
    # The estimator.
    label: str
    # Rounds that are averaged.
    window: int


class Scored(NamedTuple):
    """The scores of all rounds, an entry a scored client and round: (n,) each."""

    # Rounds from 0.
    t: np.ndarray
    client: np.ndarray
    values: np.ndarray


def find(run):
    """The ``Contributions`` of a run; None if it has no scores."""
    scored = _scored(run)
    if scored is None:
        return None
    T = len(run.ends)
    window = max(1, round(T / WINDOWS))
    bad = _bad_clients(run, scored.client)
    names = ("clients", "bad")
    if _tells_good_from_bad(run):
        names = ("good", "bad")
    is_bad_row = bad[scored.client]
    means = []
    for name, rows in zip(names, (~is_bad_row, is_bad_row)):
        if rows.any():
            means.append(_mean_by_round(name, scored.t[rows], scored.values[rows], window))
    estimators = run.attrs.get("estimators") or ["contribution"]
    label = next(iter(estimators))
    single = _single_clients(scored, bad, window)
    return Contributions(single, means, label, window)


def _scored(run):
    """The ``Scored`` of a run; None without a score."""
    values = run.clients.get("contribution")
    client = run.clients.get("client")
    if values is None or client is None:
        return None
    is_scored = np.isfinite(values)
    if not is_scored.any():
        return None
    cohort_sizes = np.diff(run.ends, prepend=0)
    t = np.repeat(np.arange(len(run.ends)), cohort_sizes)
    return Scored(t[is_scored], client[is_scored], values[is_scored].astype(float))


def _tells_good_from_bad(run):
    truth = quality(run)
    return truth is not None and np.ptp(tied(truth)) > 0


def _bad_clients(run, client):
    """(N,) bool: the bad clients; none if all are equally good."""
    if _tells_good_from_bad(run):
        return is_bad(tied(quality(run)), faulty(run))
    return np.zeros(client.max() + 1, bool)


def _single_clients(scored, bad, window):
    clients = np.unique(scored.client)
    if len(clients) > SINGLE:
        return []
    curves = []
    for client in clients:
        rows = scored.client == client
        x = scored.t[rows] + 1.0
        y = _smooth(scored.values[rows], window)
        curves.append((bool(bad[client]), x, y))
    return curves


def _mean_by_round(name, t, values, window):
    """The Line of the mean in each round, with the quartiles of the round's clients."""
    rounds = np.unique(t)
    rows = []
    for round in rounds:
        of_round = values[t == round]
        low, high = np.percentile(of_round, [25, 75])
        rows.append((np.mean(of_round), low, high))
    mean, low, high = (_smooth(column, window) for column in np.transpose(rows))
    return Line(name, rounds + 1.0, mean, low, high)


def _smooth(y, window):
    """(n,) the mean of the last ``window`` values of ``y`` at each place, of fewer at the start."""
    end = np.arange(len(y)) + 1
    start = np.maximum(end - window, 0)
    # The sum of y[start:end] is sums[end] - sums[start].
    sums = np.concatenate([[0.0], np.cumsum(y)])
    totals = sums[end] - sums[start]
    return totals / (end - start)


def draw(place, numbers):
    """Single clients as thin lines, then the means as thick ones."""
    ax = place.subplots()
    for bad, x, y in numbers.single:
        colour = drawing.style(int(bad))["color"]
        ax.plot(x, y, linewidth=0.7, alpha=0.35, color=colour)
    means = numbers.means
    if numbers.single:
        # Single clients show the spread already: a band would hide them.
        means = [line._replace(low=None, high=None) for line in means]
    ylabel = f"contribution, {numbers.label}"
    if len(ylabel) >= ROOM:
        ylabel = numbers.label
    drawing.lines(ax, means, "round", ylabel, whole=True)


def say(numbers):
    smoothing = ""
    if numbers.window > 1:
        smoothing = f", mean of {numbers.window} rounds"
    spread = "band: the middle half of the clients"
    if numbers.single:
        spread = "thin: each client"
    ends = " and ".join(_end(line) for line in numbers.means)
    return (f"Contribution by {numbers.label}, round by round{smoothing}; thick: the mean, {spread}. "
            f"On average {ends}.")


def _end(line):
    if line.label == "clients":
        return f"they end at {line.y[-1]:.3g}"
    return f"{line.label} clients end at {line.y[-1]:.3g}"
