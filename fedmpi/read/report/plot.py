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
    """``(size in inches, show)``: ``show(figure)`` draws a panel of each of ``names`` (of KINDS) of Groups, one a run
    where a kind shows one; UserError where a run has not recorded what a panel needs. Panels have a title where there
    are several, and one legend where several show the same lines. ``baselines`` [(name, a number or a Run)] are levels
    across the panels of curves."""
    panels = [panel for name in names for panel in _panels(groups, name)]
    panels, lines = _framed(panels, xlim, ylim, baselines)
    columns = min(len(panels), columns or max(1, int(width_cm // NARROW_CM)))
    rows = [panels[start:start + columns] for start in range(0, len(panels), columns)]
    inches = width_cm * CM / columns
    heights = [max(inches_high(kind, found, inches, PRINT_PT) for _, kind, found in row) for row in rows]
    titled = any(name for name, _, _ in panels)
    head = LINE_IN * len(lines) * (1 if width_cm < 2 * NARROW_CM else 0.5) + LINE_IN * bool(lines)
    top = 1.5 * LINE_IN * bool(title)
    height = height_cm * CM if height_cm else sum(heights) + 0.2 * titled * len(rows) + head + top

    def show(figure):
        if title:
            figure.suptitle(title)
        body = figure
        if lines:
            above, body = figure.subfigures(2, 1, height_ratios=[head, max(height - head - top, head)])
            draw.legend(above, lines)
        parts = body.subfigures(len(rows), columns, squeeze=False, height_ratios=heights)
        for row, panels in zip(parts, rows):
            for place, (name, kind, found) in zip(row, panels):
                kind.draw(place, found)
                if titled and name:
                    place.suptitle(name, fontsize="medium")

    return (width_cm * CM, height), show


def _framed(panels, xlim, ylim, baselines):
    """``(panels, lines)``: the panels with what goes around their curves, and the lines that one legend names for all,
    none where each panel names its own. UserError for what a panel cannot take."""
    curves = [found for _, _, found in panels if isinstance(found, Curves)]
    if (xlim or ylim or baselines) and len(curves) < len(panels):
        raise UserError("--xlim, --ylim and --baseline are of curves: a panel of another --kind takes none of them")
    if xlim and len({each.xlabel for each in curves}) > 1:
        raise UserError("--xlim: these kinds have several axes, "
                        f"{', '.join(dict.fromkeys(each.xlabel for each in curves))}; draw one at a time")
    if len({each.column for each in curves}) > 1 and (ylim or any(isinstance(y, float) for _, y in baselines)):
        raise UserError("--ylim, or a number as --baseline: these kinds show accuracy, loss or sparsity side by side; "
                        "draw one of them at a time")
    labels = {tuple(line.label for line in each.lines) for each in curves}
    shared = len(curves) > 1 and len(curves) == len(panels) and len(labels) == 1 and len(curves[0].lines) > 1
    framed = []
    for name, kind, found in panels:
        if isinstance(found, Curves):
            levels = tuple((label, _level(label, what, found.column)) for label, what in baselines)
            found = found._replace(frame=draw.Frame(xlim, ylim, levels, named=not shared))
        framed.append((name, kind, found))
    return framed, curves[0].lines if shared else []


def _level(label, what, column):
    """Where a baseline lies: its number, or the last value of ``column`` that its run has."""
    if isinstance(what, float):
        return what
    known = evaluated(what, column)
    if not len(known):
        raise UserError(f"--baseline {label}: that run has no {column} yet")
    return float(what.rounds[column][known[-1]])


def _panels(groups, name):
    """[(title, Kind, what it found)]: one for all groups, or one for each run."""
    kind = KINDS[name]
    if not kind.each:
        shown = [("", "", groups)]
    else:
        shown = [(path, group.label if len(groups) > 1 else "", run)
                 for group in groups for path, run in group.runs.items()]
    found = [(title, kind, kind.find(what), path) for path, title, what in shown]
    for _, _, numbers, path in found:
        if numbers is None:
            raise UserError(f"{path + ': ' if path else ''}--kind {name}: not recorded, or no round that shows it yet")
    return [(title, kind, numbers) for title, kind, numbers, _ in found]
