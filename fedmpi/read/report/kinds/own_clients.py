"""Clients on their own test parts, from the worst to the best."""

import numpy as np

from fedmpi.read.headline import headline
from fedmpi.read.report import draw as drawing
from fedmpi.read.report.kinds.picture import capitalized, fraction_axis
from fedmpi.read.report.own import last
from fedmpi.read.report.series import Line


def find(run):
    """The run's ``Last`` evaluation, sorted from the worst client to the best; None of fewer than
    two clients."""
    tested = last(run)
    if tested is None or len(tested.clients) < 2:
        return None
    worth = tested.values
    # Of an error, the largest is the worst.
    if not headline(run).higher:
        worth = -worth
    order = np.argsort(worth, kind="stable")
    return tested._replace(
        clients=tested.clients[order],
        samples=tested.samples[order],
        values=tested.values[order])


def draw(place, tested):
    ax = place.subplots()
    if tested.metric == "accuracy":
        fraction_axis(ax)
    N = len(tested.clients)
    percents = 100 * (np.arange(N) + 1) / N
    line = Line("clients", percents, tested.values)
    drawing.lines(ax, [line], "clients, from the worst (%)", f"{tested.metric} on its own test")


def say(tested):
    low, median, high = np.percentile(tested.values, [0, 50, 100])
    metric = capitalized(tested.metric)
    N, worst = len(tested.clients), tested.clients[0]
    return (f"{metric} of {N} clients on their own test parts after round {tested.round}, from the "
            f"worst to the best: lowest {low:.3g}, median {median:.3g}, highest {high:.3g}; the "
            f"worst is client {worst}.")
