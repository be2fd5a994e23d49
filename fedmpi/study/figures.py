"""Figures of a study: learning curves, a measure against a factor, weights of noisy clients, claims
as intervals."""

import math
import os
import textwrap

import numpy as np

from fedmpi.read.report.figure import plain_axes, save_figure
from fedmpi.read.report.statistics import interval
from fedmpi.study.measures import NEAR
from fedmpi.study.outcome_text import cell_words

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKS, DASHES = "os^Dv<>P", ("-", "--", "-.", ":")
VERDICT_COLOURS = {
    "confirmed": "#009E73",
    "refuted": "#D55E00",
    "not confirmed": "#777777",
    "incomplete": "#BBBBBB",
}
# Characters of a line of a panel's title, and of a claim.
TITLE, CLAIM = 44, 60


def draw(study, findings, traces, folder):
    """Write all figures as SVG and PNG into ``folder``/figures; ``[(title, path of the PNG below
    folder)]``."""
    os.makedirs(os.path.join(folder, "figures"), exist_ok=True)
    makers = {"curves": _curves, "factor": _factor, "weights": _weights}
    drawn = []
    for number, spec in enumerate(study.recipe.get("figure", []), 1):
        kind = spec["kind"]
        figure = makers[kind](study, findings, traces, spec)
        if figure:
            drawn.append(_saved(folder, f"{number}-{kind}", *figure))
    claims = _claims(findings)
    if claims:
        drawn.append(_saved(folder, "claims", *claims))
    return drawn


def _saved(folder, name, title, size, draw_on):
    # PNG for the page of the outcome, SVG for papers.
    for kind in ("svg", "png"):
        path = os.path.join(folder, "figures", f"{name}.{kind}")
        save_figure(path, size, draw_on)
    return title, f"figures/{name}.png"


# ------------------------------------------------------------- panels


def _grid(figure, rows, columns, **more):
    """(rows * columns,) axes, row by row."""
    axes = figure.subplots(rows, columns, squeeze=False, **more)
    return np.ravel(axes)


def _panels(num, most=3):
    """``(rows, columns, (width, height) in inches)`` of a figure with ``num`` panels."""
    columns = min(num, most)
    rows = math.ceil(num / columns)
    # The legend beside the panels takes 1.4 inches.
    width = 3.0 * columns + 1.4
    height = 2.3 * rows + 0.3
    return rows, columns, (width, height)


def _in_panels(panels, draw_panel, x, y):
    """``(size, on)`` of a figure with a panel for each of ``panels``, drawn by ``draw_panel(ax,
    panel)``; ``x`` and ``y`` are the labels of all axes."""
    rows, columns, size = _panels(len(panels))

    def on(figure):
        axes = _grid(figure, rows, columns)
        for ax, panel in zip(axes, panels):
            draw_panel(ax, panel)
            plain_axes(ax)
        # The grid may have more places than there are panels.
        for ax in axes[len(panels):]:
            ax.set_visible(False)
        figure.supxlabel(x, fontsize=8)
        figure.supylabel(y, fontsize=8)
        _legend(figure, axes)

    return size, on


def _title(ax, cell, grid, arm=None):
    """Write the subject of ``ax`` over it, in lines that fit, broken at commas; nothing if it is
    the only one."""
    words = [arm, cell_words(cell, grid)]
    subject = ", ".join(filter(None, words))
    # Only the blanks behind commas may become line breaks.
    breakable = subject.replace(" ", "\xa0").replace(",\xa0", ", ")
    title = textwrap.fill(breakable, TITLE, break_on_hyphens=False)
    ax.set_title(title, fontsize=8)


def _style(number):
    """The look of a line by its number: eight colours, then the same ones dashed."""
    turn, place = divmod(number, len(COLOURS))
    return {
        "color": COLOURS[place],
        "linestyle": DASHES[turn % len(DASHES)],
        "linewidth": 1.2,
    }


def _legend(figure, axes):
    """One legend beside all panels."""
    handle_of = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        handle_of.update(zip(labels, handles))
    if not handle_of:
        return
    figure.legend(
        handle_of.values(),
        handle_of.keys(),
        loc="outside right upper",
        frameon=False,
        fontsize=7)


def _whole_rounds(ax):
    """Ticks of the round, below, at whole numbers alone."""
    ax.xaxis.get_major_locator().set_params(integer=True)


# ------------------------------------------------------------- learning curves


def _curves(study, findings, traces, spec):
    """The test headline by round, mean over seeds; a panel a cell, a line an arm, a band of a
    standard deviation."""
    lines = _seed_curves(study, traces)
    cells = [cell for cell in study.cells if lines[cell]]
    if not cells:
        return None

    def draw_cell(ax, cell):
        for arm, curves in lines[cell].items():
            number = study.arms.index(arm)
            _draw_mean(ax, np.stack(curves), arm, number)
        levels = dict(zip(study.grid, cell))
        _title(ax, levels, study.grid)
        _whole_rounds(ax)

    size, on = _in_panels(cells, draw_cell, "round", _headline_label(traces))
    return "Learning curves, mean and standard deviation over seeds", size, on


def _headline_label(traces):
    """``test accuracy (fraction right)``, or ``test`` and the headlines of other tasks."""
    words = [trace["word"] for trace in traces.values()]
    different = list(dict.fromkeys(words))
    label = f"test {' or '.join(different)}"
    if different == ["accuracy"]:
        label += " (fraction right)"
    return label


def _seed_curves(study, traces):
    """``{cell: {arm: [(T,) headline of a finished run]}}``."""
    curves = {cell: {} for cell in study.cells}
    for cell in study.cells:
        for arm in study.arms:
            for seed in study.seeds:
                name = study.runs[arm, cell, seed]
                if name in traces:
                    of_seeds = curves[cell].setdefault(arm, [])
                    of_seeds.append(traces[name]["values"])
    return curves


def _draw_mean(ax, values, arm, number):
    """Mean and band of ``values`` (seeds, T), at the rounds evaluated by all seeds."""
    is_evaluated = np.isfinite(values).all(axis=0)
    evaluated = values[:, is_evaluated]
    # Rounds count from 1.
    rounds = np.flatnonzero(is_evaluated) + 1
    mean = evaluated.mean(axis=0)
    # One seed has no deviation: its band is a line.
    has_spread = len(values) > 1
    std = evaluated.std(axis=0, ddof=int(has_spread))
    style = _style(number)
    ax.plot(rounds, mean, label=arm, **style)
    ax.fill_between(
        rounds,
        mean - std,
        mean + std,
        color=style["color"],
        alpha=0.12,
        linewidth=0)


# ------------------------------------------------------------- a measure against a factor


def _factor(study, findings, traces, spec):
    """A measure against the levels of a factor: a line an arm (or a level of ``lines``), a panel
    for all the rest."""
    x = spec["x"]
    by = spec.get("lines", "arm")
    name = spec.get("measure", "accuracy")
    levels = study.grid.get(x, ())
    # One level makes no line.
    if len(levels) < 2:
        return None
    lines = _lines(study, by)
    if not lines:
        return None
    points = _points(findings, x, by, name)
    if not points:
        return None
    factors = study.grid | {"arm": study.arms}

    def draw_rest(ax, rest):
        values_of = points[rest]
        for number, (line, label) in enumerate(lines.items()):
            if line in values_of:
                _draw_levels(ax, values_of[line], levels, label, number)
        ax.set_xticks(range(len(levels)), levels)
        _title(ax, dict(rest), factors)

    size, on = _in_panels(list(points), draw_rest, x, name.replace("_", " "))
    return f"{name} against {x}, mean and standard deviation over seeds", size, on


def _lines(study, by):
    """``{arm or level: its label}``; empty for a factor without levels in this size."""
    if by == "arm":
        return {arm: arm for arm in study.arms}
    levels = study.grid.get(by, ())
    return {level: f"{by} {level}" for level in levels}


def _points(findings, x, by, name):
    """``{rest: {line: {level: [values]}}}`` of a measure; ``rest`` are the other factors with their
    levels."""
    points = {}
    for run in findings["runs"]:
        if not run["measures"]:
            continue
        value = run["measures"][name]
        if not math.isfinite(value):
            continue
        place = {"arm": run["arm"], **run["cell"]}
        level, line = place[x], place[by]
        rest = tuple((key, place[key]) for key in place if key not in (x, by))
        by_level = points.setdefault(rest, {}).setdefault(line, {})
        by_level.setdefault(level, []).append(value)
    return points


def _draw_levels(ax, values_of, levels, label, number):
    """A line through the means of ``values_of`` {level: values}, with bars of a standard
    deviation."""
    xs, means, stds = [], [], []
    for x, level in enumerate(levels):
        if level in values_of:
            of_level = interval(values_of[level])
            xs.append(x)
            means.append(of_level.mean)
            # One seed has no deviation: its bar has no length.
            stds.append(np.nan_to_num(of_level.std))
    ax.errorbar(
        xs,
        means,
        stds,
        marker=MARKS[number % len(MARKS)],
        markersize=3.5,
        capsize=2,
        label=label,
        **_style(number))


# ------------------------------------------------------------- weights of noisy clients


def _weights(study, findings, traces, spec):
    """Weights by round of clients with like rates of wrong labels, mean over them and seeds; a
    panel a cell and arm."""
    panels = {}
    for (arm, cell, _), name in study.runs.items():
        trace = traces.get(name)
        if trace and trace["weights"] is not None:
            runs = panels.setdefault((cell, arm), [])
            runs.append(trace["weights"])
    if not panels:
        return None
    rates = [noise for runs in panels.values() for noise, _ in runs]
    levels = noise_levels(np.concatenate(rates))

    def draw_panel(ax, panel):
        cell, arm = panel
        for number, level in enumerate(levels):
            _draw_weights(ax, panels[panel], level, number)
        cell_levels = dict(zip(study.grid, cell))
        _title(ax, cell_levels, study.grid, arm)
        ax.set_ylim(bottom=0)
        _whole_rounds(ax)

    size, on = _in_panels(list(panels), draw_panel, "round", "weight of a client in the merge")
    return "Weights of clients by their rate of wrong labels, mean over seeds", size, on


def _draw_weights(ax, runs, level, number):
    """The mean weight of the clients of one noise level; ``runs`` [(noise (N,), weights (T,
    N))]."""
    low, high, rate = level
    of_runs = []
    # Runs lie side by side: a row a round, a column a client.
    for noise, weights in runs:
        is_of_level = (noise >= low) & (noise <= high)
        of_runs.append(weights[:, is_of_level])
    of_level = np.hstack(of_runs)
    if not of_level.size:
        return
    # NaN in rounds without any of these clients.
    mean = np.ma.masked_invalid(of_level).mean(axis=1).filled(np.nan)
    rounds = np.arange(1, len(mean) + 1)
    ax.plot(rounds, mean, label=f"{rate:.0%} wrong", **_style(number))


def noise_levels(rates):
    """``[(lowest, highest, mean)]`` of the levels of the ``rates`` (n,) of wrong labels.

    Noise is drawn: clients of one level differ, but by less than NEAR from the next one. Rates
    without levels are put into tenths."""
    rates = np.sort(rates)
    gaps = np.flatnonzero(np.diff(rates) > NEAR)
    levels = np.split(rates, gaps + 1)
    widest = max(np.ptp(level) for level in levels)
    # Rates that follow each other this closely and reach this far are graded.
    if widest > 3 * NEAR:
        steps = np.flatnonzero(np.diff(rates.round(1)))
        levels = np.split(rates, steps + 1)
    bounds = []
    for level in levels:
        # The rates of a level are sorted.
        low, high = float(level[0]), float(level[-1])
        bounds.append((low, high, float(level.mean())))
    return bounds


# ------------------------------------------------------------- claims


def _claims(findings):
    """Every judged claim as its mean and interval against its criterion, in units of the measure; a
    panel a measure."""
    by_measure = _drawable_claims(findings)
    if not by_measure:
        return None
    heights = [len(rows) + 1 for rows in by_measure.values()]
    num_rows = sum(heights) - len(heights)
    # Inches: a line a claim, and each panel's axis and label.
    height = 0.42 * num_rows + 0.5 * len(heights) + 0.6

    def on(figure):
        axes = _grid(figure, len(heights), 1, height_ratios=heights)
        for ax, (name, rows) in zip(axes, by_measure.items()):
            _draw_claims(ax, rows, findings["grid"])
            ax.set_xlabel(_claims_label(name, rows))
            plain_axes(ax)
        _verdict_legend(figure, axes[0], by_measure)

    title = ("Claims: mean and 95 % interval, against what is asked (line) and the mean to be "
             "reached (dotted)")
    return title, (7.2, height), on


def _drawable_claims(findings):
    """``{measure: [(claim, judged)]}`` of the claims with a finite interval."""
    by_measure = {}
    for claim in findings["claims"]:
        for judged in claim["judged"]:
            spread = judged["interval"]
            if spread is not None and math.isfinite(spread.low):
                rows = by_measure.setdefault(claim["measure"], [])
                rows.append((claim, judged))
    return by_measure


def _claims_label(name, rows):
    label = name.replace("_", " ")
    if all("minus" in claim for claim, _ in rows):
        return f"difference of {label}"
    return label


def _verdict_legend(figure, ax, by_measure):
    """A legend above the panels, of the verdicts in them; ``ax`` holds its handles."""
    verdicts = {judged["verdict"] for rows in by_measure.values() for _, judged in rows}
    for verdict, colour in VERDICT_COLOURS.items():
        if verdict in verdicts:
            # A line without points: the legend needs its look alone.
            ax.plot([], [], "o-", color=colour, label=verdict)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper right",
        ncols=4,
        frameon=False,
        fontsize=7)


def _draw_claims(ax, rows, grid):
    """``rows`` [(claim, judged)] from the top, each with its text."""
    labels = []
    for y, (claim, judged) in enumerate(rows):
        spread = judged["interval"]
        colour = VERDICT_COLOURS[judged["verdict"]]
        ax.plot([spread.low, spread.high], [y, y], color=colour, linewidth=2)
        ax.plot([spread.mean], [y], "o", color=colour, markersize=5)
        bound = claim.get("above", claim.get("below"))
        _draw_bound(ax, y, bound)
        if "reach" in claim:
            _draw_bound(ax, y, claim["reach"], linestyle=":")
        labels.append(_claim_label(claim, judged, grid))
    ax.set_yticks(range(len(rows)), labels, fontsize=7)
    # Downwards, so that the first claim stands at the top.
    ax.set_ylim(len(rows) - 0.5, -0.5)


def _claim_label(claim, judged, grid):
    """The claim in two lines at most, and its cell below."""
    lines = textwrap.wrap(claim["says"], CLAIM, max_lines=2, placeholder=" ...")
    lines.append(cell_words(judged["cell"], grid))
    # The words of the only cell are empty.
    return "\n".join(lines).strip()


def _draw_bound(ax, y, value, linestyle="-"):
    low = y - 0.35
    high = y + 0.35
    ax.plot(
        [value, value],
        [low, high],
        color="black",
        linewidth=1,
        linestyle=linestyle)
