"""How pictures are drawn, whatever they are of: lines with their names at their ends, bars, points,
heat maps.

Every function draws on an ``ax`` (or, where it needs two, on a ``place``: a figure or a part of
one) of matplotlib.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.read.report.figure import BLUE, COLOURS, INK, plain_axes, style

NEAR = 16                         # characters of a name that fits beside its line
CROWDED = 40                      # bars whose marks begin to meet
MARKS = 6                         # markers a line


class Frame(NamedTuple):
    """What is drawn around lines: the ends of the axes (None: as the lines need), ``levels``
    [(name, y)] across all of the picture, and whether the lines have their names in it."""

    xlim: tuple | None = None
    ylim: tuple | None = None
    levels: tuple = ()
    named: bool = True


def lines(ax, found, xlabel, ylabel, *, whole=False, steps=False, frame=Frame()):
    """``found`` [Line] with names at the ends; bands between the lowest and highest of several
    seeds. ``steps``: what is held until the next point, not on the way to it."""
    width = _font_size() / 7
    for number, line in enumerate(found):
        look = style(number)
        every = max(1, -(-len(line.x) // MARKS))
        ax.plot(line.x, line.y, linewidth=width, markersize=3 * width, markevery=(number * every // 4 % every, every),
                drawstyle="steps-post" if steps else "default", **look)
        if line.low is not None:
            ax.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.16, linewidth=0,
                            step="post" if steps else None)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if whole:
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.margins(x=0.02)
    plain_axes(ax)
    _levels(ax, frame.levels, width)
    if frame.xlim:
        ax.set_xlim(frame.xlim)
    if frame.ylim:
        ax.set_ylim(frame.ylim)
    if frame.named:
        names(ax, found)


def _levels(ax, levels, width):
    """Dotted lines across the picture, each with its name over its left end."""
    for name, y in levels:
        ax.axhline(y, color=INK, linewidth=width, linestyle=(0, (1, 1.5)))
        ax.annotate(name, (0.01, y), (0, 1.5), xycoords=("axes fraction", "data"), textcoords="offset points",
                    va="bottom", color=INK, fontsize="small")


def legend(place, found):
    """The names of the lines, each with a piece of it, on a figure or a part of one that has
    nothing else."""
    width = _font_size() / 7
    handles = [_handle(number, width) for number in range(len(found))]
    place.legend(handles, [line.label for line in found], loc="center left", ncols=legend_columns(place, found),
                 handlelength=3.2, columnspacing=1.2, borderaxespad=0, labelspacing=0.2)


def legend_columns(place, found):
    """How many names stand in a row: as many of the longest as there is room for."""
    longest = max(len(line.label) for line in found)
    each = (0.6 * longest + 5) * _font_size() / 72
    return max(1, min(len(found), int(place.bbox.width / place.get_figure(root=True).dpi / each)))


def _handle(number, width):
    from matplotlib.lines import Line2D
    return Line2D([], [], linewidth=width, markersize=3 * width, **style(number))


def names(ax, found):
    """Each line's name beside its last point, moved apart where two would meet; where one is long,
    all above."""
    if len(found) < 2:
        return
    ax.autoscale_view()
    size = _font_size()
    width = size / 7
    looks = [style(number) for number in range(len(found))]
    if _long(found):
        handles = [_handle(number, width) for number in range(len(found))]
        above(ax, handles, [line.label for line in found], 1)
        return
    low, high = ax.get_ylim()
    ends = [(_last_seen(line, ax.get_xlim()[1]) - low) / (high - low) for line in found]
    ax.set_ylim(low, high)
    height = 0.9 * ax.get_window_extent().height / ax.get_figure(root=True).dpi * 72      # before labels take room
    for place, line, look in zip(_apart(ends, 1.25 * size / height), found, looks):
        _sample(ax, place, size, look)
        ax.annotate(line.label, (1, place), (3.2 * size, 0), "axes fraction", "offset points", va="center", color=INK)


def _last_seen(line, right):
    """The line's last value left of ``right``, the end of the axis; its first where there is
    none."""
    known = np.isfinite(line.y)
    seen = line.y[known & (line.x <= right)]
    return seen[-1] if len(seen) else line.y[known][0]


def _long(found):
    """Whether the names of the lines have no room beside them."""
    return len(found) > 1 and (max(len(line.label) for line in found) > NEAR or len(found) > 9)


def names_above(found):
    """How many names stand over a picture of these lines."""
    return len(found) if _long(found) else 0


def _sample(ax, place, size, look):
    """A short piece of a line, right of the axes at height ``place``: points from their edge,
    wherever that will be."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Affine2D, ScaledTranslation

    points = Affine2D().scale(1 / 72) + ax.get_figure(root=True).dpi_scale_trans
    ax.add_line(Line2D([0.6 * size, 1.75 * size, 2.9 * size], [0, 0, 0], clip_on=False, linewidth=size / 7,
                       markersize=3 * size / 7, markevery=[1],
                       transform=points + ScaledTranslation(1, place, ax.transAxes), **look))


def _font_size():
    from matplotlib import rcParams
    return rcParams["font.size"]


def _apart(wanted, gap):
    """Places in [0, 1] as near to those ``wanted`` as may be, in the same order and ``gap`` apart
    at least."""
    order = np.argsort(wanted, kind="stable")
    at = np.asarray(wanted, float)[order]
    steps = gap * np.arange(len(at))
    blocks = []                                # pool adjacent violators: [sum, number] of what must move together
    for value in at - steps:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            value, number = blocks.pop()
            blocks[-1] = [blocks[-1][0] + value, blocks[-1][1] + number]
    placed = np.concatenate([np.full(number, total / number) for total, number in blocks])
    found = np.empty(len(at))
    found[order] = np.clip(placed, 0, max(1 - steps[-1], 0)) + steps
    return found


def stems(ax, found, xlabel, ylabel):
    """``found`` [Line] as thin bars with a mark on top, beside one another where several are at one
    place; zeros are not drawn."""
    width = _font_size() / 7
    some = [number for number, line in enumerate(found) if line.y.any()]
    step = min(0.25, 0.8 / max(len(some), 1))  # what belongs to a round stays nearer to it than to the next
    for number, line in enumerate(found):
        look, there = style(number), line.y > 0
        x = line.x[there] + (some.index(number) - (len(some) - 1) / 2) * step if there.any() else []
        ax.vlines(x, 0, line.y[there], color=look["color"], linewidth=width)
        size = 3.2 * width * min(1, CROWDED / max(len(x), 1))
        ax.plot(x, line.y[there], linestyle="", color=look["color"], marker=look["marker"], markersize=size,
                label=line.label)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_ylim(0, max(1.08 * max(line.y.max(initial=0) for line in found), 1e-9))
    ax.set_xlim(0.5, max(line.x.max(initial=1) for line in found) + 0.5)
    ax.xaxis.get_major_locator().set_params(integer=True)
    plain_axes(ax)
    if len(found) > 1:
        above(ax, *ax.get_legend_handles_labels(), 2 if max(len(line.label) for line in found) < NEAR else 1, 1)


def heat(ax, values, top):
    """``values`` (rows, columns) as cells, the fuller the more; masked ones stay empty. Blue over
    nothing, so that it goes with any ground."""
    from matplotlib.colors import LinearSegmentedColormap

    red, green, blue = (int(BLUE[i:i + 2], 16) / 255 for i in (1, 3, 5))
    shades = LinearSegmentedColormap.from_list("blue", [(red, green, blue, 0.07), (red, green, blue, 1.0)])
    N, K = values.shape
    return ax.imshow(values, cmap=shades, vmin=0, vmax=top, aspect="auto", interpolation="none",
                     extent=(-0.5, K - 0.5, N - 0.5, -0.5))


def points(ax, found, xlabel, ylabel):
    """``found`` [(name, x, y)], a look each."""
    size = (4 * _font_size() / 7) ** 2
    for number, (name, x, y) in enumerate(found):
        look = style(number)
        ax.scatter(x, y, s=size, c=look["color"], marker=look["marker"], alpha=0.8, linewidths=0, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    plain_axes(ax)
    if len(found) > 1:
        above(ax, *ax.get_legend_handles_labels(), 3, 1)


def bars(ax, found, xlabel):
    """``found`` [(name, value, its text, inside)] as bars from the top; those inside another are
    lighter."""
    largest = max(value for _, value, _, _ in found)
    for row, (_, value, text, inside) in enumerate(found):
        ax.barh(row, value, height=0.7, color=BLUE, alpha=0.4 if inside else 1)
        ax.annotate(text, (value, row), (4, 0), textcoords="offset points", va="center", color=INK)
    ax.set_yticks(range(len(found)), [name for name, _, _, _ in found])
    ax.set(xlabel=xlabel, ylim=(len(found) - 0.4, -0.6), xlim=(0, 1.45 * largest))
    ax.tick_params(axis="y", length=0)
    plain_axes(ax, "x")
    ax.spines["left"].set_visible(False)


def stacked(ax, x, found, xlabel, ylabel):
    """``found`` [(name, (n,) values, number of its look)] on top of one another at ``x``."""
    base = np.zeros(len(x))
    width = np.diff(x).min(initial=1) * 0.9
    for name, values, number in found:
        ax.bar(x, values, width, bottom=base, color=COLOURS[number], alpha=0.35 if number == 0 else 1, label=name,
               hatch=("", "////", "...", "xxx", "\\\\\\\\")[number % 5], linewidth=0)
        base = base + values
    ax.set(xlabel=xlabel, ylabel=ylabel)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)
    plain_axes(ax, "y")
    above(ax, *ax.get_legend_handles_labels(), 3, 1.4)


def above(ax, handles, names, columns, length=3.2):
    """A legend over the picture, where it hides nothing."""
    ax.legend(handles, names, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, handlelength=length,
              borderaxespad=0.2, labelspacing=0.2, columnspacing=1, handletextpad=0.5)
