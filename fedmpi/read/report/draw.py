"""How pictures are drawn, whatever they are of: lines with their names at their ends, bars, points,
heat maps.

Every function draws on an ``ax`` of matplotlib. ``legend`` draws on a ``place``: a figure or a part
of one.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.read.report.figure import BLUE, COLOURS, INK, plain_axes, style

# The longest name that fits beside its line, in characters.
NEAR = 16
# The most lines whose names have room beside them.
MOST_BESIDE = 9
# With more bars than this, the marks on top of them begin to meet.
CROWDED = 40
# About so many markers stand on a line.
MARKS = 6
POINTS_AN_INCH = 72
HATCHES = ("", "////", "...", "xxx", "\\\\\\\\")


class Frame(NamedTuple):
    """The surroundings of lines.

    ``xlim`` and ``ylim``: the ends of the axes; None fits them to the lines. ``levels``: [(name,
    y)], lines across the whole picture. ``named``: whether the picture names its own lines."""

    xlim: tuple | None = None
    ylim: tuple | None = None
    levels: tuple = ()
    named: bool = True


def lines(ax, curves, xlabel, ylabel, *, whole=False, steps=False, frame=Frame()):
    """``curves`` [Line] with names at their ends, and bands from the lowest to the highest seed.

    ``whole``: the axis x has whole numbers only. ``steps``: a value holds until the next point,
    instead of approaching it."""
    for number, curve in enumerate(curves):
        _curve(ax, curve, number, steps)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if whole:
        _whole_numbers(ax.xaxis)
    ax.margins(x=0.02)
    plain_axes(ax)
    _levels(ax, frame.levels)
    if frame.xlim:
        ax.set_xlim(frame.xlim)
    if frame.ylim:
        ax.set_ylim(frame.ylim)
    if frame.named:
        names(ax, curves)


def _curve(ax, curve, number, steps):
    """One line with about MARKS markers, and its band."""
    look = style(number)
    every = max(1, -(-len(curve.x) // MARKS))
    # Lines begin their markers at different places, so that these do not cover one another.
    first = number * every // 4 % every
    drawstyle = "steps-post" if steps else "default"
    ax.plot(
        curve.x, curve.y, linewidth=_line_width(), markersize=3 * _line_width(),
        markevery=(first, every), drawstyle=drawstyle, **look)
    if curve.low is not None:
        step = "post" if steps else None
        ax.fill_between(
            curve.x, curve.low, curve.high, color=look["color"], alpha=0.16, linewidth=0, step=step)


def _whole_numbers(axis):
    axis.get_major_locator().set_params(integer=True)


def _levels(ax, levels):
    """Dotted lines across the picture, each with its name over its left end."""
    for name, y in levels:
        ax.axhline(y, color=INK, linewidth=_line_width(), linestyle=(0, (1, 1.5)))
        ax.annotate(
            name, (0.01, y), (0, 1.5), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="bottom", color=INK, fontsize="small")


def legend(place, curves):
    """The names of ``curves`` [Line], each with a sample of its line; ``place`` holds nothing
    else."""
    place.legend(
        _handles(curves), _labels(curves), loc="center left", ncols=legend_columns(place, curves),
        handlelength=3.2, columnspacing=1.2, borderaxespad=0, labelspacing=0.2)


def legend_columns(place, curves):
    """How many names stand in a row: as many of the longest as there is room for."""
    # A character is about 0.6 font sizes wide; the sample and the gaps take 5 more.
    entry_width = 0.6 * _longest(curves) + 5
    entry_in = entry_width * _font_size() / POINTS_AN_INCH
    place_in = place.bbox.width / _dpi(place)
    fitting = int(place_in / entry_in)
    return max(1, min(len(curves), fitting))


def _handles(curves):
    """A sample of each line, for a legend."""
    from matplotlib.lines import Line2D
    width = _line_width()
    handles = []
    for number in range(len(curves)):
        handles.append(Line2D([], [], linewidth=width, markersize=3 * width, **style(number)))
    return handles


def _labels(curves):
    return [curve.label for curve in curves]


def _longest(curves):
    """The length of the longest name, in characters."""
    return max(len(curve.label) for curve in curves)


def names(ax, curves):
    """Each line's name beside its last point, names too near to one another moved apart.

    If there is no room beside the lines, all names stand above the picture. One line alone has no
    name."""
    if len(curves) < 2:
        return
    # The places of names follow from the limits, which are not up to date yet.
    ax.autoscale_view()
    if _stand_above(curves):
        above(ax, _handles(curves), _labels(curves), 1)
        return
    low, high = ax.get_ylim()
    right = ax.get_xlim()[1]
    ends = [(_last_seen(curve, right) - low) / (high - low) for curve in curves]
    # Labels may not change the limits that their places were computed from.
    ax.set_ylim(low, high)
    # The picture becomes lower when labels take room, so count on a tenth less.
    height_in = 0.9 * ax.get_window_extent().height / _dpi(ax)
    # A line of text needs a quarter more than the size of its type.
    gap = 1.25 * _font_size() / (height_in * POINTS_AN_INCH)
    for number, height in enumerate(_apart(ends, gap)):
        _sample(ax, height, style(number))
        ax.annotate(
            curves[number].label, (1, height), (3.2 * _font_size(), 0), "axes fraction",
            "offset points", va="center", color=INK)


def _last_seen(curve, right):
    """The line's last value left of ``right``, the end of the axis; its first if there is none."""
    is_finite = np.isfinite(curve.y)
    seen = curve.y[is_finite & (curve.x <= right)]
    if len(seen):
        return seen[-1]
    return curve.y[is_finite][0]


def _stand_above(curves):
    """Whether the names of the lines have no room beside them."""
    if len(curves) < 2:
        return False
    return _longest(curves) > NEAR or len(curves) > MOST_BESIDE


def names_above(curves):
    """How many names stand over a picture of these lines."""
    return len(curves) if _stand_above(curves) else 0


def _sample(ax, height, look):
    """A short piece of a line, right of the axes at ``height``, a fraction of theirs."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Affine2D, ScaledTranslation

    size = _font_size()
    # In points from the right edge of the axes, which moves as the layout makes room for names.
    points = Affine2D().scale(1 / POINTS_AN_INCH) + _figure(ax).dpi_scale_trans
    from_edge = points + ScaledTranslation(1, height, ax.transAxes)
    x = [0.6 * size, 1.75 * size, 2.9 * size]
    piece = Line2D(
        x, [0, 0, 0], clip_on=False, linewidth=size / 7, markersize=3 * size / 7, markevery=[1],
        transform=from_edge, **look)
    ax.add_line(piece)


def _font_size():
    from matplotlib import rcParams
    return rcParams["font.size"]


def _line_width():
    """Lines are as thin, against the type, on small pictures as on large ones."""
    return _font_size() / 7


def _figure(place):
    return place.get_figure(root=True)


def _dpi(place):
    return _figure(place).dpi


def _apart(wanted, gap):
    """Places in [0, 1] near those ``wanted``, in the same order and at least ``gap`` apart.

    Least squares under these bounds, by pooling adjacent violators."""
    order = np.argsort(wanted, kind="stable")
    sorted_places = np.asarray(wanted, float)[order]
    gaps = gap * np.arange(len(sorted_places))
    # Without the gaps, "at least gap apart" becomes "not decreasing".
    moved = _not_decreasing(sorted_places - gaps)
    highest = max(1 - gaps[-1], 0)
    places = np.empty(len(moved))
    places[order] = np.clip(moved, 0, highest) + gaps
    return places


def _not_decreasing(values):
    """(n,) the nearest sequence to ``values`` (n,) that never decreases."""
    blocks = []
    for value in values:
        block = Block(value, 1)
        while blocks and blocks[-1].mean >= block.mean:
            before = blocks.pop()
            block = Block(before.total + block.total, before.size + block.size)
        blocks.append(block)
    return np.concatenate([np.full(block.size, block.mean) for block in blocks])


class Block(NamedTuple):
    """Names that move together: the sum of their places, and their number."""

    total: float
    size: int

    @property
    def mean(self):
        return self.total / self.size


def stems(ax, series, xlabel, ylabel):
    """``series`` [Line] as thin bars with a mark on top; zeros are not drawn.

    Bars of several series at one place stand beside one another."""
    num_drawn = sum(bool(one.y.any()) for one in series)
    # The bars of a round stay nearer to it than to the next round.
    step = min(0.25, 0.8 / max(num_drawn, 1))
    place = -(num_drawn - 1) / 2
    highest, last = 0.0, 1.0
    for number, one in enumerate(series):
        _stems_of(ax, one, style(number), place * step)
        # A series of zeros takes no room.
        place += one.y.any()
        highest = max(highest, one.y.max(initial=0))
        last = max(last, one.x.max(initial=1))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    # An axis from 0 to 0 would be a warning.
    ax.set_ylim(0, max(1.08 * highest, 1e-9))
    ax.set_xlim(0.5, last + 0.5)
    _whole_numbers(ax.xaxis)
    plain_axes(ax)
    if len(series) > 1:
        columns = 2 if _longest(series) < NEAR else 1
        _legend_above(ax, columns, 1)


def _stems_of(ax, one, look, shift):
    is_positive = one.y > 0
    x = one.x[is_positive] + shift
    y = one.y[is_positive]
    width = _line_width()
    size = 3.2 * width * min(1, CROWDED / max(len(x), 1))
    ax.vlines(x, 0, y, color=look["color"], linewidth=width)
    ax.plot(
        x, y, linestyle="", color=look["color"], marker=look["marker"], markersize=size,
        label=one.label)


def heat(ax, values, top):
    """``values`` (rows, columns) as cells, the fuller the larger; masked cells stay empty.

    ``top``: the value of a full cell. Cells are transparent blue, for light and for dark pages."""
    from matplotlib.colors import LinearSegmentedColormap

    rgb = [int(BLUE[start:start + 2], 16) / 255 for start in (1, 3, 5)]
    faint, full = (*rgb, 0.07), (*rgb, 1.0)
    shades = LinearSegmentedColormap.from_list("blue", [faint, full])
    N, K = values.shape
    return ax.imshow(
        values, cmap=shades, vmin=0, vmax=top, aspect="auto", interpolation="none",
        extent=(-0.5, K - 0.5, N - 0.5, -0.5))


def points(ax, series, xlabel, ylabel):
    """``series`` [(name, x, y)] as points, a look each."""
    # Scatter takes the area of a marker.
    size = (4 * _font_size() / 7) ** 2
    for number, (name, x, y) in enumerate(series):
        look = style(number)
        ax.scatter(
            x, y, s=size, c=look["color"], marker=look["marker"], alpha=0.8, linewidths=0,
            label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    plain_axes(ax)
    if len(series) > 1:
        _legend_above(ax, 3, 1)


def bars(ax, rows, xlabel):
    """``rows`` [(name, value, its text, is_part)] as bars from the top; a part of another is
    lighter."""
    names = []
    largest = 0.0
    for place, (name, value, text, is_part) in enumerate(rows):
        names.append(name)
        largest = max(largest, value)
        alpha = 0.4 if is_part else 1
        ax.barh(place, value, height=0.7, color=BLUE, alpha=alpha)
        ax.annotate(
            text, (value, place), (4, 0), textcoords="offset points", va="center", color=INK)
    ax.set_yticks(range(len(rows)), names)
    # The first row is on top.
    ax.set_ylim(len(rows) - 0.4, -0.6)
    # Texts need room on the right.
    ax.set_xlim(0, 1.45 * largest)
    ax.set_xlabel(xlabel)
    # Names stand beside their bars: no tick has to lead to them.
    ax.tick_params(axis="y", length=0)
    plain_axes(ax, "x")
    ax.spines["left"].set_visible(False)


def stacked(ax, x, series, xlabel, ylabel):
    """``series`` [(name, (n,) values, number of its look)] on top of one another at ``x`` (n,)."""
    base = np.zeros(len(x))
    width = np.diff(x).min(initial=1) * 0.9
    for name, values, number in series:
        # Look 0 is the usual outcome, which the others should stand out from.
        alpha = 0.35 if number == 0 else 1
        ax.bar(
            x, values, width, bottom=base, color=COLOURS[number], alpha=alpha, label=name,
            hatch=HATCHES[number % len(HATCHES)], linewidth=0)
        base = base + values
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _whole_numbers(ax.xaxis)
    _whole_numbers(ax.yaxis)
    plain_axes(ax, "y")
    _legend_above(ax, 3, 1.4)


def _legend_above(ax, columns, length):
    """A legend over the picture, of everything with a label."""
    handles, labels = ax.get_legend_handles_labels()
    above(ax, handles, labels, columns, length)


def above(ax, handles, labels, columns, length=3.2):
    """A legend above the picture, where it hides nothing."""
    ax.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns,
        handlelength=length, borderaxespad=0.2, labelspacing=0.2, columnspacing=1,
        handletextpad=0.5)
