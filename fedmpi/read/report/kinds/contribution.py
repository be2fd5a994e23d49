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
    share_of_rounds = round(T / WINDOWS)
    window = max(1, share_of_rounds)
    bad = _bad_clients(run, scored.client)
    names = ("clients", "bad")
    if _tells_good_from_bad(run):
        names = ("good", "bad")
    is_bad_row = bad[scored.client]
    means = []
    kinds_of_rows = (~is_bad_row, is_bad_row)
    for name, rows in zip(names, kinds_of_rows):
        if rows.any():
            t = scored.t[rows]
            values = scored.values[rows]
            mean = _mean_by_round(name, t, values, window)
            means.append(mean)
    recorded = run.attrs.get("estimators")
    estimators = recorded or ["contribution"]
    # The first one is the estimator whose scores count.
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
    numbers = np.arange(len(run.ends))
    t = np.repeat(numbers, cohort_sizes)
    scores = values[is_scored].astype(float)
    return Scored(t[is_scored], client[is_scored], scores)


def _tells_good_from_bad(run):
    truth = quality(run)
    return truth is not None and np.ptp(tied(truth)) > 0


def _bad_clients(run, client):
    """(N,) bool: the bad clients; none if all are equally good."""
    if _tells_good_from_bad(run):
        truth = tied(quality(run))
        return is_bad(truth, faulty(run))
    num_clients = client.max() + 1
    return np.zeros(num_clients, bool)


def _single_clients(scored, bad, window):
    clients = np.unique(scored.client)
    if len(clients) > SINGLE:
        return []
    curves = []
    for client in clients:
        rows = scored.client == client
        t = scored.t[rows]
        x = t + 1.0
        values = scored.values[rows]
        y = _smooth(values, window)
        is_bad_client = bool(bad[client])
        curves.append((is_bad_client, x, y))
    return curves


def _mean_by_round(name, t, values, window):
    """The Line of the mean in each round, with the quartiles of the round's clients."""
    rounds = np.unique(t)
    rows = []
    for round in rounds:
        of_round = values[t == round]
        low, high = np.percentile(of_round, [25, 75])
        mean_of_round = np.mean(of_round)
        rows.append((mean_of_round, low, high))
    columns = np.transpose(rows)
    mean, low, high = (_smooth(column, window) for column in columns)
    numbers = rounds + 1.0
    return Line(name, numbers, mean, low, high)


def _smooth(y, window):
    """(n,) the mean of the last ``window`` values of ``y`` at each place, of fewer at the start."""
    places = np.arange(len(y))
    end = places + 1
    unlimited_start = end - window
    start = np.maximum(unlimited_start, 0)
    running_sums = np.cumsum(y)
    # The sum of y[start:end] is sums[end] - sums[start].
    sums = np.concatenate([[0.0], running_sums])
    until_end = sums[end]
    until_start = sums[start]
    totals = until_end - until_start
    lengths = end - start
    return totals / lengths


def draw(place, numbers):
    """Single clients as thin lines, then the means as thick ones."""
    ax = place.subplots()
    for bad, x, y in numbers.single:
        look = drawing.style(int(bad))
        colour = look["color"]
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
