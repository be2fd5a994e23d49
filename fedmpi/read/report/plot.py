"""Pictures for papers: panels of any kinds, of one run or of several."""

from fedmpi.core.errors import UserError
from fedmpi.read.report import draw
from fedmpi.read.report.figure import PRINT_PT, inches_high, save_figure
from fedmpi.read.report.kinds import PICTURES, Curves
from fedmpi.read.report.series import evaluated

# A centimetre in inches.
CM = 1 / 2.54
# The height of a line of names; a title takes half as much again.
LINE_IN = 0.16
# The least width of a panel where several stand in a row.
NARROW_CM = 5.0


def save_plot(
        groups, names, path, width_cm=8.5, height_cm=None, font="sans", columns=None, **around):
    """Writes the picture of ``plotted`` to a file; ``around``: its title, limits and baselines."""
    size, show = plotted(groups, names, width_cm, height_cm, columns, **around)
    save_figure(path, size, show, font)


def plotted(
        groups, names, width_cm=8.5, height_cm=None, columns=None, *, title=None, xlim=None,
        ylim=None, baselines=()):
    """``(size in inches, show)``: ``show(figure)`` draws a panel of each of ``names`` (of PICTURES) of
    Groups.

    Some kinds have a panel a run. Several panels have titles, and one legend if they show the same
    lines. ``baselines`` [(name, a number or a Run)] are levels across the panels of curves.
    UserError if a run has not recorded the numbers of a panel."""
    panels = []
    for name in names:
        panels += _panels(groups, name)
    panels, lines = _framed(panels, xlim, ylim, baselines)
    fitting = max(1, int(width_cm // NARROW_CM))
    columns = min(len(panels), columns or fitting)
    width = width_cm * CM
    heights = _row_heights(panels, columns, width / columns)
    titles = _titles_height(panels, len(heights))
    head = _head_height(lines, width_cm)
    top = 1.5 * LINE_IN * bool(title)
    height = sum(heights) + titles + head + top
    # A height that the user asks for changes the panels, not the legend or the title.
    if height_cm:
        height = height_cm * CM

    def show(figure):
        if title:
            figure.suptitle(title)
        body = figure
        if lines:
            rest = max(height - head - top, head)
            above, body = figure.subfigures(2, 1, height_ratios=[head, rest])
            draw.legend(above, lines)
        parts = body.subfigures(len(heights), columns, squeeze=False, height_ratios=heights)
        # The last row may have fewer panels than columns.
        for place, (panel_title, kind, numbers) in zip(parts.flat, panels):
            kind.draw(place, numbers)
            if panel_title:
                place.suptitle(panel_title, fontsize="medium")

    return (width, height), show


def _titles_height(panels, num_rows):
    """The height of the panels' own titles, in inches; 0 without any."""
    has_titles = any(title for title, _, _ in panels)
    return 0.2 * has_titles * num_rows


def _row_heights(panels, columns, panel_width):
    """The height of each row of panels, by its highest panel; all in inches."""
    heights = []
    for _, kind, numbers in panels:
        heights.append(inches_high(kind, numbers, panel_width, PRINT_PT))
    starts = range(0, len(panels), columns)
    return [max(heights[start:start + columns]) for start in starts]


def _head_height(lines, width_cm):
    """The height of the common legend: a line a name, in two columns on a wide page."""
    if not lines:
        return 0.0
    num_rows = len(lines)
    if width_cm >= 2 * NARROW_CM:
        # Two names stand beside one another.
        num_rows = 0.5 * len(lines)
    return LINE_IN * num_rows + LINE_IN


def _framed(panels, xlim, ylim, baselines):
    """``(panels, lines)``: the panels with frames around their curves, and the lines of one legend
    for all.

    No lines if each panel names its own. UserError for limits or levels that a panel cannot
    take."""
    curves = [numbers for _, _, numbers in panels if isinstance(numbers, Curves)]
    _check_frame(panels, curves, xlim, ylim, baselines)
    is_shared = len(curves) == len(panels) and _have_same_lines(curves)
    framed = []
    for title, kind, numbers in panels:
        if isinstance(numbers, Curves):
            levels = _levels(baselines, numbers.column)
            frame = draw.Frame(xlim, ylim, levels, named=not is_shared)
            numbers = numbers._replace(frame=frame)
        framed.append((title, kind, numbers))
    if is_shared:
        return framed, curves[0].lines
    return framed, []


def _check_frame(panels, curves, xlim, ylim, baselines):
    has_frame = xlim or ylim or baselines
    if has_frame and len(curves) < len(panels):
        raise UserError(
            "--xlim, --ylim and --baseline are of curves: a panel of another --kind takes none of "
            "them")
    xlabels = list(dict.fromkeys(one.xlabel for one in curves))
    if xlim and len(xlabels) > 1:
        raise UserError(
            f"--xlim: these kinds have several axes, {', '.join(xlabels)}; draw one at a time")
    columns = {one.column for one in curves}
    has_numbers = any(isinstance(level, float) for _, level in baselines)
    if len(columns) > 1 and (ylim or has_numbers):
        raise UserError(
            "--ylim, or a number as --baseline: these kinds show accuracy, loss or sparsity side "
            "by side; draw one of them at a time")


def _have_same_lines(curves):
    """Whether there are several panels, all with the same several lines."""
    labels = {tuple(line.label for line in one.lines) for one in curves}
    if len(curves) < 2 or len(labels) > 1:
        return False
    return len(curves[0].lines) > 1


def _levels(baselines, column):
    """((name, height), ...) of the baselines of a panel of ``column``."""
    return tuple((label, _level(label, baseline, column)) for label, baseline in baselines)


def _level(label, baseline, column):
    """The height of a baseline: its number, or the last value of ``column`` in its run."""
    if isinstance(baseline, float):
        return baseline
    rounds = evaluated(baseline, column)
    if not len(rounds):
        raise UserError(f"--baseline {label}: that run has no {column} yet")
    last = rounds[-1]
    return float(baseline.rounds[column][last])


def _panels(groups, name):
    """[(title, Picture, its numbers)]: one for all groups, or one for each run."""
    kind = PICTURES[name]
    if not kind.each:
        return [_panel(name, groups, "")]
    panels = []
    for group in groups:
        title = group.label if len(groups) > 1 else ""
        for path, run in group.runs.items():
            panels.append(_panel(name, run, title, f"{path}: "))
    return panels


def _panel(name, subject, title, where=""):
    """(title, Picture, its numbers) of the ``subject``, groups or a run; UserError, beginning with
    ``where``, if it has none."""
    kind = PICTURES[name]
    numbers = kind.find(subject)
    if numbers is None:
        raise UserError(f"{where}--kind {name}: not recorded, or no round that shows it yet")
    return title, kind, numbers
