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
    by_classes = 3.2 + 0.16 * K
    width_in = min(by_classes, 6.4)
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
    # Without faults or wrong labels there is nothing to tell apart.
    if len(names) > 1:
        lengths = map(len, names)
        longest = max(lengths)
        columns = 2 if longest < 24 else 1
        place.legend(handles, names, loc="outside lower center", ncols=columns)


def _draw_labels(ax, labels):
    N, K = labels.shape
    share = proportions(labels)
    # Masked cells stay empty: classes that a client does not hold.
    percent = np.ma.masked_equal(100 * share, 0)
    three_even_shares = 300 / K
    highest = percent.max()
    high_enough = min(100, three_even_shares)
    # Full blue is three times an even share at least, so that an even split looks even.
    top = max(float(highest), high_enough)
    image = heat(ax, percent, top)
    ax.set(xlabel="label", ylabel="client")
    axes = ((ax.xaxis, K), (ax.yaxis, N))
    for axis, count in axes:
        axis.get_major_locator().set_params(integer=True)
        if count <= NUMBERED:
            numbers = range(count)
            axis.set_ticks(numbers)
    return image


def _draw_samples(ax, federation):
    clients = federation["clients"]
    samples = clients["samples"]
    share_right = 1 - clients["noise"]
    right = samples * share_right
    start = np.zeros(len(samples))
    _bars(ax, start, right, BLUE, "right label")
    has_noise = clients["noise"].any()
    if has_noise:
        _bars(ax, right, samples, ORANGE, "wrong label")
    specs = federation["faults"]
    is_faulty = clients["faulty"]
    widest = _draw_faults(ax, specs, is_faulty, samples)
    limits = (0, max(widest, 1))
    ax.set(xlabel="samples", xlim=limits)
    ax.spines[["top", "right"]].set_visible(False)
    # The heat map has the same clients on its axis.
    ax.tick_params(labelleft=False)


def _bars(ax, start, end, colour, label):
    """A bar a client from ``start`` to ``end`` (N,); one shape together if they are too many."""
    N = len(start)
    # Thousands of single bars would make a large file.
    if N > MANY:
        edges = np.arange(N + 1) - 0.5
        ax.stairs(
            end, edges, baseline=start, orientation="horizontal", fill=True, color=colour,
            label=label)
    else:
        lengths = end - start
        places = np.arange(N)
        ax.barh(places, lengths, 0.8, left=start, color=colour, label=label)


def _draw_faults(ax, specs, faulty, samples):
    """Draws a mark a fault behind each bar, side by side; returns how far the axis must reach."""
    largest = samples.max()
    step = 0.07 * largest
    marks_so_far = np.cumsum(faulty, axis=1)
    ends = samples[:, None]
    # The marks of a client stand behind one another.
    places = ends + step * marks_so_far
    for number, spec in enumerate(specs):
        is_hit = faulty[:, number]
        clients = np.flatnonzero(is_hit)
        x = places[clients, number]
        mark = MARKS[number % len(MARKS)]
        ax.scatter(x, clients, s=9, c=INK, marker=mark, linewidths=0.8, label=spec)
    farthest = places.max(initial=0)
    widest = max(farthest, largest)
    return widest + step
