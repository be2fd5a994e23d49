"""Figures of a study: learning curves, a measure against a factor, weights of noisy clients, claims
as intervals."""

import math
import os
import textwrap

import numpy as np

from fedmpi.read.report.figure import plain_axes, save_figure
from fedmpi.read.report.statistics import interval
from fedmpi.study.measures import NEAR
from fedmpi.study.outcome_text import told

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")   # Okabe and Ito's
# Characters of a line of a panel's title, and of a claim.
TITLE, CLAIM = 44, 60
MARKS, DASHES = "os^Dv<>P", ("-", "--", "-.", ":")
VERDICT_COLOURS = {"confirmed": "#009E73", "refuted": "#D55E00", "not confirmed": "#777777", "incomplete": "#BBBBBB"}


def draw(study, found, traces, folder):
    """Write all figures as SVG and PNG into ``folder``/figures; ``[(title, path of the PNG below
    folder)]``."""
    os.makedirs(os.path.join(folder, "figures"), exist_ok=True)
    makers = {"curves": _curves, "factor": _factor, "weights": _weights}
    drawn = []
    for number, spec in enumerate(study.recipe.get("figure", []), 1):
        figure = makers[spec["kind"]](study, found, traces, spec)
        if figure:
            drawn.append(_saved(folder, f"{number}-{spec['kind']}", *figure))
    claims = _claims(found)
    if claims:
        drawn.append(_saved(folder, "claims", *claims))
    return drawn


def _grid(figure, rows, columns, **more):
    """(rows * columns,) axes, row by row."""
    return np.ravel(figure.subplots(rows, columns, squeeze=False, **more))


def _saved(folder, name, title, size, draw_on):
    for kind in ("svg", "png"):
        save_figure(os.path.join(folder, "figures", f"{name}.{kind}"), size, draw_on)
    return title, f"figures/{name}.png"


def _panels(num, most=3):
    columns = min(num, most)
    rows = math.ceil(num / columns)
    return rows, columns, (3.0 * columns + 1.4, 2.3 * rows + 0.3)


def _title(ax, cell, grid, arm=None):
    """Write the subject of ``ax`` over it, in lines that fit, broken at commas; nothing if it is
    the only one."""
    subject = ", ".join(filter(None, (arm, told(cell, grid))))
    # Only the blanks behind commas may become line breaks.
    breakable = subject.replace(" ", "\xa0").replace(",\xa0", ", ")
    ax.set_title(textwrap.fill(breakable, TITLE, break_on_hyphens=False), fontsize=8)


def _style(number):
    turn, place = divmod(number, 8)
    return {"color": COLOURS[place], "linestyle": DASHES[turn % 4], "linewidth": 1.2}


def _legend(figure, axes):
    """One legend beside all panels."""
    handles = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            handles[label] = handle
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=7)


def _curves(study, found, traces, spec):
    """The test headline by round, mean over seeds; a panel a cell, a line an arm, a band of a
    standard deviation."""
    lines = _seed_curves(study, traces)
    cells = [cell for cell in study.cells if lines[cell]]
    if not cells:
        return None
    rows, columns, size = _panels(len(cells))
    words = list(dict.fromkeys(trace["word"] for trace in traces.values()))
    ylabel = f"test {' or '.join(words)}"
    if words == ["accuracy"]:
        ylabel += " (fraction right)"

    def on(figure):
        axes = _grid(figure, rows, columns)
        for ax, cell in zip(axes, cells):
            for arm, curves in lines[cell].items():
                _draw_mean(ax, np.stack(curves), arm, study.arms.index(arm))
            _title(ax, dict(zip(study.grid, cell)), study.grid)
            ax.xaxis.get_major_locator().set_params(integer=True)
            plain_axes(ax)
        _finish(figure, axes, len(cells), "round", ylabel)

    return "Learning curves, mean and standard deviation over seeds", size, on


def _seed_curves(study, traces):
    """``{cell: {arm: [(T,) headline of a finished run]}}``."""
    curves = {cell: {} for cell in study.cells}
    for cell in study.cells:
        for arm in study.arms:
            for seed in study.seeds:
                name = study.runs[arm, cell, seed]
                if name in traces:
                    curves[cell].setdefault(arm, []).append(traces[name]["values"])
    return curves


def _draw_mean(ax, values, arm, number):
    """Mean and band of ``values`` (seeds, T), at the rounds that all seeds have evaluated."""
    rounds = np.flatnonzero(np.isfinite(values).all(axis=0))
    mean = values[:, rounds].mean(axis=0)
    std = values[:, rounds].std(axis=0, ddof=len(values) > 1)
    ax.plot(rounds + 1, mean, label=arm, **_style(number))
    ax.fill_between(rounds + 1, mean - std, mean + std, color=COLOURS[number % 8], alpha=0.12, linewidth=0)


def _finish(figure, axes, used, x, y):
    """Labels and legend of a figure; axes beyond the first ``used`` stay empty."""
    for ax in axes[used:]:
        ax.set_visible(False)
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    _legend(figure, axes)


def _factor(study, found, traces, spec):
    """A measure against the levels of a factor: a line an arm (or a level of ``lines``), a panel
    for all the rest."""
    x, by, name = spec["x"], spec.get("lines", "arm"), spec.get("measure", "accuracy")
    levels = study.grid.get(x, ())
    if len(levels) < 2:
        return None
    if by == "arm":
        lines = study.arms
    elif by in study.grid:
        lines = study.grid[by]
    else:
        return None
    points = _points(found, x, by, name)
    if not points:
        return None
    rows, columns, size = _panels(len(points))

    def on(figure):
        axes = _grid(figure, rows, columns)
        for ax, (rest, by_line) in zip(axes, points.items()):
            for number, line in enumerate(lines):
                if line in by_line:
                    label = line if by == "arm" else f"{by} {line}"
                    _draw_levels(ax, by_line[line], levels, label, number)
            ax.set_xticks(range(len(levels)), levels)
            _title(ax, dict(rest), study.grid | {"arm": study.arms})
            plain_axes(ax)
        _finish(figure, axes, len(points), x, name.replace("_", " "))

    return f"{name} against {x}, mean and standard deviation over seeds", size, on


def _points(found, x, by, name):
    """``{rest: {line: {level: [values]}}}`` of a measure; ``rest`` are the other factors with their
    levels."""
    points = {}
    for run in found["runs"]:
        if not run["measures"] or not math.isfinite(run["measures"][name]):
            continue
        place = {"arm": run["arm"], **run["cell"]}
        level, line = place[x], place[by]
        rest = tuple((key, value) for key, value in place.items() if key not in (x, by))
        by_level = points.setdefault(rest, {}).setdefault(line, {})
        by_level.setdefault(level, []).append(run["measures"][name])
    return points


def _draw_levels(ax, values_of, levels, label, number):
    """A line through the means of ``values_of`` {level: values}, with bars of a standard
    deviation."""
    at = [place for place, level in enumerate(levels) if level in values_of]
    intervals = [interval(values_of[levels[place]]) for place in at]
    means = [each.mean for each in intervals]
    stds = [np.nan_to_num(each.std) for each in intervals]
    marker = MARKS[number % 8]
    ax.errorbar(at, means, stds, marker=marker, markersize=3.5, capsize=2, label=label, **_style(number))


def _weights(study, found, traces, spec):
    """Weights by round of clients with like rates of wrong labels, mean over them and seeds; a
    panel a cell and arm."""
    panels = {}
    for (arm, cell, _), name in study.runs.items():
        if name in traces and traces[name]["weights"] is not None:
            panels.setdefault((cell, arm), []).append(traces[name]["weights"])
    if not panels:
        return None
    rates = [noise for runs in panels.values() for noise, _ in runs]
    levels = noise_levels(np.concatenate(rates))
    rows, columns, size = _panels(len(panels))

    def on(figure):
        axes = _grid(figure, rows, columns)
        for ax, ((cell, arm), runs) in zip(axes, panels.items()):
            for number, level in enumerate(levels):
                _draw_weights(ax, runs, level, number)
            _title(ax, dict(zip(study.grid, cell)), study.grid, arm)
            ax.set_ylim(bottom=0)
            ax.xaxis.get_major_locator().set_params(integer=True)
            plain_axes(ax)
        _finish(figure, axes, len(panels), "round", "weight of a client in the merge")

    return "Weights of clients by their rate of wrong labels, mean over seeds", size, on


def _draw_weights(ax, runs, level, number):
    """The mean weight of the clients of one noise level; ``runs`` [(noise (N,), weights (T,
    N))]."""
    low, high, rate = level
    of_level = np.hstack([weights[:, (noise >= low) & (noise <= high)] for noise, weights in runs])
    if not of_level.size:
        return
    # NaN in rounds without any of these clients.
    mean = np.ma.masked_invalid(of_level).mean(axis=1).filled(np.nan)
    rounds = np.arange(1, len(mean) + 1)
    ax.plot(rounds, mean, label=f"{rate:.0%} wrong", **_style(number))


def noise_levels(rates):
    """``[(lowest, highest, mean)]`` of the levels of the ``rates`` (n,) of wrong labels.

    Noise is drawn, so that clients of one level differ, but by less than NEAR from the next one.
    Rates without levels are put into tenths."""
    rates = np.sort(rates)
    gaps = np.flatnonzero(np.diff(rates) > NEAR)
    levels = np.split(rates, gaps + 1)
    if any(np.ptp(level) > 3 * NEAR for level in levels):
        steps = np.flatnonzero(np.diff(rates.round(1)))
        levels = np.split(rates, steps + 1)
    return [(float(level[0]), float(level[-1]), float(level.mean())) for level in levels]


def _claims(found):
    """Every judged claim as its mean and interval against its criterion, in units of the measure; a
    panel a measure."""
    by_measure = {}
    for claim in found["claims"]:
        for judged in claim["judged"]:
            if judged["interval"] is not None and math.isfinite(judged["interval"].low):
                by_measure.setdefault(claim["measure"], []).append((claim, judged))
    if not by_measure:
        return None
    heights = [len(rows) + 1 for rows in by_measure.values()]
    verdicts = {judged["verdict"] for rows in by_measure.values() for _, judged in rows}
    num_rows = sum(heights) - len(heights)

    def on(figure):
        axes = _grid(figure, len(heights), 1, height_ratios=heights)
        for ax, (name, rows) in zip(axes, by_measure.items()):
            _draw_claims(ax, rows, found["grid"])
            xlabel = name.replace("_", " ")
            if all("minus" in claim for claim, _ in rows):
                xlabel = f"difference of {xlabel}"
            ax.set_xlabel(xlabel)
            plain_axes(ax)
        for verdict, colour in VERDICT_COLOURS.items():
            if verdict in verdicts:
                axes[0].plot([], [], "o-", color=colour, label=verdict)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=4, frameon=False, fontsize=7)

    title = "Claims: mean and 95 % interval, against what is asked (line) and the mean to be reached (dotted)"
    return title, (7.2, 0.42 * num_rows + 0.5 * len(heights) + 0.6), on


def _draw_claims(ax, rows, grid):
    """``rows`` [(claim, judged)] from the top, each with its text."""
    labels = []
    for y, (claim, judged) in enumerate(rows):
        spread, colour = judged["interval"], VERDICT_COLOURS[judged["verdict"]]
        ax.plot([spread.low, spread.high], [y, y], color=colour, linewidth=2)
        ax.plot([spread.mean], [y], "o", color=colour, markersize=5)
        _draw_bound(ax, y, claim.get("above", claim.get("below")))
        if "reach" in claim:
            _draw_bound(ax, y, claim["reach"], linestyle=":")
        says = textwrap.wrap(claim["says"], CLAIM, max_lines=2, placeholder=" ...")
        labels.append("\n".join([*says, told(judged["cell"], grid)]).strip())
    ax.set_yticks(range(len(rows)), labels, fontsize=7)
    ax.set_ylim(len(rows) - 0.5, -0.5)


def _draw_bound(ax, y, value, **look):
    ax.plot([value, value], [y - 0.35, y + 0.35], color="black", linewidth=1, **look)
