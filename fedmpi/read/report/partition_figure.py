"""A partition for print: clients by classes as a heat map, samples beside it, wrong labels and
faults marked."""

import numpy as np

from fedmpi.read.report.draw import heat
from fedmpi.read.report.figure import BLUE, INK, ORANGE, save_figure
from fedmpi.read.report.statistics import proportions

MARKS = ("x", "^", "s", "D", "v", "P", "*", "o")
# The bars of more clients cannot be told apart.
MANY = 60
# Up to so many rows or columns have a number each.
NUMBERED = 20


def save_partition(federation, path):
    """Writes a picture of a partition as ``described`` returns it; the kind follows the extension:
    png, svg or pdf."""
    N, K = federation["clients"]["labels"].shape
    width_in = min(3.2 + 0.16 * K, 6.4)
    by_clients = max(1.5 + 0.13 * N, 2.4)
    # A page is no higher.
    height_in = min(by_clients, 7.5)

    def show(figure):
        draw_partition(figure, federation)

    save_figure(path, (width_in, height_in), show)


def draw_partition(place, federation):
    """Draws the clients on ``place``, a figure or a part of one.

    ``federation``: as ``clients_of`` or ``described`` return it."""
    labels = federation["clients"]["labels"]
    if labels.shape[1]:
        heat_ax, bars = place.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        image = _draw_labels(heat_ax, labels)
        place.colorbar(
            image, ax=heat_ax, location="top", label="share of a client's samples (%)", aspect=30,
            pad=0.02)
    else:
        bars = place.subplots()
    _draw_samples(bars, federation)
    handles, names = bars.get_legend_handles_labels()
    if len(names) > 1:
        longest = max(map(len, names))
        columns = 2 if longest < 24 else 1
        place.legend(handles, names, loc="outside lower center", ncols=columns)


def _draw_labels(ax, labels):
    N, K = labels.shape
    # Masked cells stay empty: classes that a client does not hold.
    percent = np.ma.masked_equal(100 * proportions(labels), 0)
    # Full blue is three times an even share at least, so that an even split looks even.
    top = max(float(percent.max()), min(100, 300 / K))
    image = heat(ax, percent, top)
    ax.set(xlabel="label", ylabel="client")
    for axis, count in ((ax.xaxis, K), (ax.yaxis, N)):
        axis.get_major_locator().set_params(integer=True)
        if count <= NUMBERED:
            axis.set_ticks(range(count))
    return image


def _draw_samples(ax, federation):
    clients = federation["clients"]
    samples = clients["samples"]
    right = samples * (1 - clients["noise"])
    _bars(ax, np.zeros(len(samples)), right, BLUE, "right label")
    if clients["noise"].any():
        _bars(ax, right, samples, ORANGE, "wrong label")
    widest = _draw_faults(ax, federation["faults"], clients["faulty"], samples)
    ax.set(xlabel="samples", xlim=(0, max(widest, 1)))
    ax.spines[["top", "right"]].set_visible(False)
    # The heat map has the same clients on its axis.
    ax.tick_params(labelleft=False)


def _bars(ax, start, end, colour, label):
    """A bar a client from ``start`` to ``end`` (N,); one shape together if they are too many."""
    N = len(start)
    if N > MANY:
        edges = np.arange(N + 1) - 0.5
        ax.stairs(
            end, edges, baseline=start, orientation="horizontal", fill=True, color=colour,
            label=label)
    else:
        ax.barh(np.arange(N), end - start, 0.8, left=start, color=colour, label=label)


def _draw_faults(ax, specs, faulty, samples):
    """Draws a mark a fault behind each bar, side by side; returns how far the axis must reach."""
    largest = samples.max()
    step = 0.07 * largest
    # The marks of a client stand behind one another.
    places = samples[:, None] + step * np.cumsum(faulty, axis=1)
    for number, spec in enumerate(specs):
        clients = np.flatnonzero(faulty[:, number])
        x = places[clients, number]
        mark = MARKS[number % len(MARKS)]
        ax.scatter(x, clients, s=9, c=INK, marker=mark, linewidths=0.8, label=spec)
    widest = max(places.max(initial=0), largest)
    return widest + step
