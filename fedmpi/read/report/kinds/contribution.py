"""Contributions round by round, of good and of bad clients."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.report import draw as drawing
from fedmpi.read.report.series import Line
from fedmpi.read.report.statistics import tied
from fedmpi.read.report.truth import faulty, is_bad, quality

SINGLE = 40                       # at most so many clients are drawn one by one
WINDOWS = 12                      # a run is as long as so many windows of the moving mean
ROOM = 30                         # characters of a label beside the axis


class Contributions(NamedTuple):
    """Moving means of contributions."""

    single: list                  # [(is it bad, x, y)] of each client, empty if there are too many
    means: list                   # [Line] of good and bad clients
    label: str                    # the estimator
    window: int                   # rounds that are averaged


class Scored(NamedTuple):
    """The scores of all rounds, an entry a client that was scored in a round: (n,) each."""

    t: np.ndarray                 # rounds from 0
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
    means = []
    for name, rows in zip(names, (~bad[scored.client], bad[scored.client])):
        if rows.any():
            means.append(_mean_by_round(name, scored.t[rows], scored.values[rows], window))
    label = next(iter(run.attrs.get("estimators") or ["contribution"]))
    return Contributions(_single_clients(scored, bad, window), means, label, window)


def _scored(run):
    values, client = run.clients.get("contribution"), run.clients.get("client")
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
    """(N,) bool: the bad clients; none where all are equally good."""
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
        curves.append((bool(bad[client]), x, _smooth(scored.values[rows], window)))
    return curves


def _mean_by_round(name, t, values, window):
    """The Line of the mean in each round, with the quartiles of the round's clients."""
    rounds = np.unique(t)
    by_round = [values[t == number] for number in rounds]
    mean = np.array([np.mean(part) for part in by_round])
    low = np.array([np.percentile(part, 25) for part in by_round])
    high = np.array([np.percentile(part, 75) for part in by_round])
    return Line(name, rounds + 1.0, _smooth(mean, window), _smooth(low, window), _smooth(high, window))


def _smooth(y, window):
    """(n,) the mean of the last ``window`` values of ``y`` at each place, of fewer at the start."""
    at = np.arange(len(y))
    start = np.maximum(at - window + 1, 0)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    return (sums[1:] - sums[start]) / (at + 1 - start)


def draw(place, found):
    ax = place.subplots()
    for bad, x, y in found.single:
        colour = drawing.style(int(bad))["color"]
        ax.plot(x, y, linewidth=0.7, alpha=0.35, color=colour)
    means = found.means
    if found.single:
        # Single clients show the spread already: a band would hide them.
        means = [line._replace(low=None, high=None) for line in means]
    ylabel = f"contribution, {found.label}"
    if len(ylabel) >= ROOM:
        ylabel = found.label
    drawing.lines(ax, means, "round", ylabel, whole=True)


def say(found):
    many = ""
    if found.window > 1:
        many = f", mean of {found.window} rounds"
    how = "band: the middle half of the clients"
    if found.single:
        how = "thin: each client"
    ends = " and ".join(map(_end, found.means))
    return f"Contribution by {found.label}, round by round{many}; thick: the mean, {how}. On average {ends}."


def _end(line):
    if line.label == "clients":
        return f"they end at {line.y[-1]:.3g}"
    return f"{line.label} clients end at {line.y[-1]:.3g}"
