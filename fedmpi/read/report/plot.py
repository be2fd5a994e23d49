"""Pictures for papers: panels of any kinds, of one run or of several."""

from fedmpi.core.errors import UserError
from fedmpi.read.report import draw
from fedmpi.read.report.figure import PRINT_PT, inches_high, save_figure
from fedmpi.read.report.kinds import KINDS, Curves
from fedmpi.read.report.series import evaluated

CM = 1 / 2.54                     # inches
LINE_IN = 0.16                    # of a line of names, or half a title
NARROW_CM = 5.0                   # the least width of a panel where several stand in a row


def save_plot(groups, names, path, width_cm=8.5, height_cm=None, font="sans", columns=None, **around):
    """Writes what ``plotted`` makes to a file, with ``around`` for what it draws around curves."""
    save_figure(path, *plotted(groups, names, width_cm, height_cm, columns, **around), font)


def plotted(groups, names, width_cm=8.5, height_cm=None, columns=None, *, title=None, xlim=None, ylim=None,
            baselines=()):
    """``(size in inches, show)``: ``show(figure)`` draws a panel of each of ``names`` (of KINDS) of
    Groups.

    Some kinds have a panel a run. Several panels have titles, and one legend if they show the same
    lines. ``baselines`` [(name, a number or a Run)] are levels across the panels of curves.
    UserError if a run has not recorded the numbers of a panel."""
    panels = [panel for name in names for panel in _panels(groups, name)]
    panels, lines = _framed(panels, xlim, ylim, baselines)
    columns = min(len(panels), columns or max(1, int(width_cm // NARROW_CM)))
    rows = [panels[start:start + columns] for start in range(0, len(panels), columns)]
    inches = width_cm * CM / columns
    heights = [_row_height(row, inches) for row in rows]
    is_titled = any(name for name, _, _ in panels)
    head = _head_height(lines, width_cm)
    top = 1.5 * LINE_IN * bool(title)
    height = sum(heights) + 0.2 * is_titled * len(rows) + head + top
    if height_cm:
        height = height_cm * CM

    def show(figure):
        if title:
            figure.suptitle(title)
        body = figure
        if lines:
            above, body = figure.subfigures(2, 1, height_ratios=[head, max(height - head - top, head)])
            draw.legend(above, lines)
        parts = body.subfigures(len(rows), columns, squeeze=False, height_ratios=heights)
        # The last row may have fewer panels than columns.
        for place, (name, kind, found) in zip(parts.flat, panels):
            kind.draw(place, found)
            if name:
                place.suptitle(name, fontsize="medium")

    return (width_cm * CM, height), show


def _row_height(row, inches):
    return max(inches_high(kind, found, inches, PRINT_PT) for _, kind, found in row)


def _head_height(lines, width_cm):
    """The height of the common legend: a line a name, in two columns on a wide page."""
    if not lines:
        return 0.0
    a_column = len(lines) if width_cm < 2 * NARROW_CM else 0.5 * len(lines)
    return LINE_IN * a_column + LINE_IN


def _framed(panels, xlim, ylim, baselines):
    """``(panels, lines)``: the panels with frames around their curves, and the lines of one legend
    for all.

    No lines if each panel names its own. UserError for limits or levels that a panel cannot
    take."""
    curves = [found for _, _, found in panels if isinstance(found, Curves)]
    _check_frame(panels, curves, xlim, ylim, baselines)
    is_shared = len(curves) == len(panels) and _have_same_lines(curves)
    framed = []
    for name, kind, found in panels:
        if isinstance(found, Curves):
            levels = tuple((label, _level(label, what, found.column)) for label, what in baselines)
            found = found._replace(frame=draw.Frame(xlim, ylim, levels, named=not is_shared))
        framed.append((name, kind, found))
    if is_shared:
        return framed, curves[0].lines
    return framed, []


def _check_frame(panels, curves, xlim, ylim, baselines):
    if (xlim or ylim or baselines) and len(curves) < len(panels):
        raise UserError("--xlim, --ylim and --baseline are of curves: a panel of another --kind takes none of them")
    xlabels = list(dict.fromkeys(found.xlabel for found in curves))
    if xlim and len(xlabels) > 1:
        raise UserError(f"--xlim: these kinds have several axes, {', '.join(xlabels)}; draw one at a time")
    columns = {found.column for found in curves}
    has_numbers = any(isinstance(level, float) for _, level in baselines)
    if len(columns) > 1 and (ylim or has_numbers):
        raise UserError("--ylim, or a number as --baseline: these kinds show accuracy, loss or sparsity side by side; "
                        "draw one of them at a time")


def _have_same_lines(curves):
    """Whether there are several panels, all with the same several lines."""
    labels = {tuple(line.label for line in found.lines) for found in curves}
    return len(curves) > 1 and len(labels) == 1 and len(curves[0].lines) > 1


def _level(label, what, column):
    """The height of a baseline: its number, or the last value of ``column`` that its run has."""
    if isinstance(what, float):
        return what
    rounds = evaluated(what, column)
    if not len(rounds):
        raise UserError(f"--baseline {label}: that run has no {column} yet")
    return float(what.rounds[column][rounds[-1]])


def _panels(groups, name):
    """[(title, Kind, its numbers)]: one for all groups, or one for each run."""
    kind = KINDS[name]
    subjects = [("", "", groups)]
    if kind.each:
        subjects = []
        for group in groups:
            title = group.label if len(groups) > 1 else ""
            subjects += [(f"{path}: ", title, run) for path, run in group.runs.items()]
    panels = []
    for begin, title, subject in subjects:
        numbers = kind.find(subject)
        if numbers is None:
            raise UserError(f"{begin}--kind {name}: not recorded, or no round that shows it yet")
        panels.append((title, kind, numbers))
    return panels
