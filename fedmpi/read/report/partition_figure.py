"""A partition for print: clients by classes as a heat map, samples beside it, wrong labels and
faults marked."""

import numpy as np

from fedmpi.read.report.draw import heat
from fedmpi.read.report.figure import BLUE, INK, ORANGE, save_figure
from fedmpi.read.report.statistics import proportions

MARKS = ("x", "^", "s", "D", "v", "P", "*", "o")


def save_partition(found, path):
    """Writes what ``described`` found; the kind follows the extension: png, svg or pdf."""
    N, K = found["clients"]["labels"].shape
    size = (min(3.2 + 0.16 * K, 6.4), min(max(1.5 + 0.13 * N, 2.4), 7.5))
    save_figure(path, size, lambda figure: draw_partition(figure, found))


def draw_partition(place, found):
    """The same on a figure or a part of one, from ``clients_of``."""
    labels = found["clients"]["labels"]
    if labels.shape[1]:
        heat_ax, bars = place.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        image = _draw_labels(heat_ax, labels)
        place.colorbar(image, ax=heat_ax, location="top", label="share of a client's samples (%)", aspect=30, pad=0.02)
    else:
        bars = place.subplots()
    _draw_samples(bars, found)
    handles, names = bars.get_legend_handles_labels()
    if len(names) > 1:
        place.legend(handles, names, loc="outside lower center", ncols=2 if max(map(len, names)) < 24 else 1)


def _draw_labels(ax, labels):
    N, K = labels.shape
    share = np.ma.masked_equal(100 * proportions(labels), 0)       # a class that a client does not hold is empty
    image = heat(ax, share, max(float(share.max()), min(100, 300 / K)))    # so that an even split looks even
    ax.set(xlabel="label", ylabel="client")
    for axis, count in ((ax.xaxis, K), (ax.yaxis, N)):
        axis.get_major_locator().set_params(integer=True)
        if count <= 20:
            axis.set_ticks(range(count))
    return image


def _draw_samples(ax, found):
    clients = found["clients"]
    samples, N = clients["samples"], len(clients["samples"])
    right = samples * (1 - clients["noise"])
    _bars(ax, np.zeros(N), right, BLUE, "right label")
    if clients["noise"].any():
        _bars(ax, right, samples, ORANGE, "wrong label")
    widest = _draw_faults(ax, found["faults"], clients["faulty"], samples)
    ax.set(xlabel="samples", xlim=(0, max(widest, 1)))
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelleft=False)


def _bars(ax, start, end, colour, label):
    """A bar a client from ``start`` to ``end`` (N,); one shape where they are too many to be told
    apart."""
    N = len(start)
    if N > 60:
        ax.stairs(end, np.arange(N + 1) - 0.5, baseline=start, orientation="horizontal", fill=True, color=colour,
                  label=label)
    else:
        ax.barh(np.arange(N), end - start, 0.8, left=start, color=colour, label=label)


def _draw_faults(ax, specs, faulty, samples):
    """A mark a fault behind each bar, side by side; returns how far the axis must reach."""
    step = 0.07 * samples.max()
    place = samples[:, None] + step * np.cumsum(faulty, axis=1)
    for number, spec in enumerate(specs):
        rows = np.flatnonzero(faulty[:, number])
        mark = MARKS[number % len(MARKS)]
        ax.scatter(place[rows, number], rows, s=9, c=INK, marker=mark, linewidths=0.8, label=spec)
    return max(place.max(initial=0), samples.max()) + step
