"""Pictures for papers: panels of any kinds, of one run or of several."""

from fedmpi.errors import UserError
from fedmpi.report.figure import PRINT_PT, inches_high, save_figure
from fedmpi.report.kinds import KINDS

CM = 1 / 2.54                     # inches
NARROW_CM = 5.0                   # the least width of a panel where several stand in a row


def save_plot(groups, names, path, width_cm=8.5, height_cm=None, font="sans", columns=None):
    """Writes a panel of each of ``names`` (of KINDS) of Groups, one a run where a kind shows one; UserError where a run
    has not recorded what a panel needs. Panels have a title where there are several."""
    panels = [panel for name in names for panel in _panels(groups, name)]
    columns = min(len(panels), columns or max(1, int(width_cm // NARROW_CM)))
    rows = [panels[start:start + columns] for start in range(0, len(panels), columns)]
    inches = width_cm * CM / columns
    heights = [max(inches_high(kind, found, inches, PRINT_PT) for _, kind, found in row) for row in rows]
    titled = len(panels) > 1
    height = height_cm * CM if height_cm else sum(heights) + 0.2 * titled * len(rows)

    def draw(figure):
        parts = figure.subfigures(len(rows), columns, squeeze=False, height_ratios=heights)
        for row, panels in zip(parts, rows):
            for place, (title, kind, found) in zip(row, panels):
                kind.draw(place, found)
                if titled and title:
                    place.suptitle(title, fontsize="medium")

    save_figure(path, (width_cm * CM, height), draw, font)


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
