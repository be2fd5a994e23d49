"""Figures of a study: learning curves, a measure against a factor, weights of noisy clients, claims as intervals."""

import math
import os
import textwrap

import numpy as np

from fedmpi.read.report.figure import plain_axes, save_figure
from fedmpi.read.report.statistics import interval
from fedmpi.study.measures import NEAR
from fedmpi.study.outcome_text import told

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")   # Okabe and Ito's
TITLE, CLAIM = 44, 60         # characters of a line of a panel's title, and of a claim
MARKS, DASHES = "os^Dv<>P", ("-", "--", "-.", ":")
VERDICT_COLOURS = {"confirmed": "#009E73", "refuted": "#D55E00", "not confirmed": "#777777", "incomplete": "#BBBBBB"}


def draw(study, found, traces, folder):
    """Write all figures as SVG and PNG into ``folder``/figures; ``[(title, path of the PNG below folder)]``."""
    os.makedirs(os.path.join(folder, "figures"), exist_ok=True)
    drawn = []
    for number, figure in enumerate(study.recipe.get("figure", []), 1):
        kind = {"curves": _curves, "factor": _factor, "weights": _weights}[figure["kind"]]
        if made := kind(study, found, traces, figure):
            drawn.append(_saved(folder, f"{number}-{figure['kind']}", *made))
    if made := _claims(found):
        drawn.append(_saved(folder, "claims", *made))
    return drawn


def _saved(folder, name, title, size, draw_on):
    for kind in ("svg", "png"):
        save_figure(os.path.join(folder, "figures", f"{name}.{kind}"), size, draw_on)
    return title, f"figures/{name}.png"


def _panels(num, most=3):
    columns = min(num, most)
    rows = math.ceil(num / columns)
    return rows, columns, (3.0 * columns + 1.4, 2.3 * rows + 0.3)


def _title(ax, cell, grid, arm=None):
    """Say over ``ax`` what it is about, in lines that fit, broken at commas; nothing where it is the only one."""
    text = ", ".join(filter(None, (arm, told(cell, grid)))).replace(" ", "\xa0").replace(",\xa0", ", ")
    ax.set_title(textwrap.fill(text, TITLE, break_on_hyphens=False), fontsize=8)


def _style(number):
    return dict(color=COLOURS[number % 8], linestyle=DASHES[number // 8 % 4], linewidth=1.2)


def _legend(figure, axes):
    """One legend beside all panels."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=7)


def _curves(study, found, traces, spec):
    """The test headline by round, mean over seeds; a panel a cell, a line an arm, a band of a standard deviation."""
    lines = {(cell, arm): [traces[study.runs[arm, cell, seed]]["values"] for seed in study.seeds
                           if study.runs[arm, cell, seed] in traces] for cell in study.cells for arm in study.arms}
    cells = [cell for cell in study.cells if any(lines[cell, arm] for arm in study.arms)]
    if not cells:
        return None
    rows, columns, size = _panels(len(cells))

    def on(figure):
        axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for ax, cell in zip(axes, cells):
            for number, arm in enumerate(study.arms):
                if lines[cell, arm]:
                    values = np.stack(lines[cell, arm])
                    known = np.flatnonzero(np.isfinite(values).all(axis=0))
                    mean, std = values[:, known].mean(axis=0), values[:, known].std(axis=0, ddof=len(values) > 1)
                    ax.plot(known + 1, mean, label=arm, **_style(number))
                    ax.fill_between(known + 1, mean - std, mean + std, color=COLOURS[number % 8], alpha=0.12,
                                    linewidth=0)
            _title(ax, dict(zip(study.grid, cell)), study.grid)
            ax.xaxis.get_major_locator().set_params(integer=True)
            plain_axes(ax)
        words = dict.fromkeys(trace["word"] for trace in traces.values())
        label = "test " + " or ".join(words)
        _finish(figure, axes, len(cells), "round", label + " (fraction right)" * (list(words) == ["accuracy"]))

    return "Learning curves, mean and standard deviation over seeds", size, on


def _finish(figure, axes, used, x, y):
    for ax in axes[used:]:
        ax.set_visible(False)
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    _legend(figure, axes)


def _factor(study, found, traces, spec):
    """A measure against the levels of a factor; a line an arm (or a level of ``lines``), a panel for what is left."""
    x, by, name = spec["x"], spec.get("lines", "arm"), spec.get("measure", "accuracy")
    if len(study.grid.get(x, ())) < 2 or by != "arm" and by not in study.grid:
        return None
    points = {}
    for run in found["runs"]:
        if run["measures"] and math.isfinite(run["measures"][name]):
            place = {"arm": run["arm"], **run["cell"]}
            rest = tuple((key, value) for key, value in place.items() if key not in (x, by))
            points.setdefault(rest, {}).setdefault(place[by], {}).setdefault(place[x], []).append(run["measures"][name])
    if not points:
        return None
    rows, columns, size = _panels(len(points))
    lines = list(study.arms if by == "arm" else study.grid[by])

    def on(figure):
        axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for ax, (rest, by_line) in zip(axes, points.items()):
            for line, levels in sorted(by_line.items(), key=lambda item: lines.index(item[0])):
                at = [number for number, level in enumerate(study.grid[x]) if level in levels]
                values = [interval(levels[study.grid[x][number]]) for number in at]
                n = lines.index(line)
                ax.errorbar(at, [v.mean for v in values], [np.nan_to_num(v.std) for v in values], marker=MARKS[n % 8],
                            markersize=3.5, capsize=2, label=line if by == "arm" else f"{by} {line}", **_style(n))
            ax.set_xticks(range(len(study.grid[x])), study.grid[x])
            _title(ax, dict(rest), study.grid | {"arm": study.arms})
            plain_axes(ax)
        _finish(figure, axes, len(points), x, name.replace("_", " "))

    return f"{name} against {x}, mean and standard deviation over seeds", size, on


def _weights(study, found, traces, spec):
    """Weights by round of clients with like rates of wrong labels, mean over them and seeds; a panel a cell and arm."""
    panels = {}
    for (arm, cell, seed), name in study.runs.items():
        if name in traces and traces[name]["weights"] is not None:
            panels.setdefault((cell, arm), []).append(traces[name]["weights"])
    if not panels:
        return None
    levels = noise_levels(np.concatenate([noise for each in panels.values() for noise, _ in each]))
    rows, columns, size = _panels(len(panels))

    def on(figure):
        axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for ax, ((cell, arm), traced) in zip(axes, panels.items()):
            for number, (low, high, rate) in enumerate(levels):
                held = np.hstack([table[:, (noise >= low) & (noise <= high)] for noise, table in traced])
                if held.size:
                    mean = np.ma.masked_invalid(held).mean(axis=1).filled(np.nan)      # NaN: nobody of them took part
                    ax.plot(np.arange(1, len(mean) + 1), mean, label=f"{rate:.0%} wrong", **_style(number))
            _title(ax, dict(zip(study.grid, cell)), study.grid, arm)
            ax.set_ylim(bottom=0)
            ax.xaxis.get_major_locator().set_params(integer=True)
            plain_axes(ax)
        _finish(figure, axes, len(panels), "round", "weight of a client in the merge")

    return "Weights of clients by their rate of wrong labels, mean over seeds", size, on


def noise_levels(rates):
    """``[(lowest, highest, mean)]`` of the levels of the ``rates`` (n,) of wrong labels: they are drawn, so that
    clients of one level differ, but by less than NEAR from the next one. Rates without levels are put into tenths."""
    rates = np.sort(rates)
    parts = np.split(rates, np.flatnonzero(np.diff(rates) > NEAR) + 1)
    if any(np.ptp(part) > 3 * NEAR for part in parts):
        parts = np.split(rates, np.flatnonzero(np.diff(rates.round(1))) + 1)
    return [(float(part[0]), float(part[-1]), float(part.mean())) for part in parts]


def _claims(found):
    """Every judged claim as its mean and interval against its criterion, in units of the measure."""
    rows = [(number, claim, each) for number, claim in enumerate(found["claims"], 1) for each in claim["judged"]
            if each["interval"] is not None and math.isfinite(each["interval"].low)]
    if not rows:
        return None
    measures = list(dict.fromkeys(claim["measure"] for _, claim, _ in rows))
    counts = [sum(claim["measure"] == name for _, claim, _ in rows) for name in measures]

    def on(figure):
        axes = np.ravel(figure.subplots(len(measures), 1, squeeze=False, height_ratios=[n + 1 for n in counts]))
        for ax, name in zip(axes, measures):
            chosen = [row for row in rows if row[1]["measure"] == name]
            for y, (_, claim, each) in enumerate(chosen):
                found_, colour = each["interval"], VERDICT_COLOURS[each["verdict"]]
                ax.plot([found_.low, found_.high], [y, y], color=colour, linewidth=2)
                ax.plot([found_.mean], [y], "o", color=colour, markersize=5)
                bound = claim.get("above", claim.get("below"))
                ax.plot([bound, bound], [y - 0.35, y + 0.35], color="black", linewidth=1)
                if "reach" in claim:
                    ax.plot([claim["reach"]] * 2, [y - 0.35, y + 0.35], color="black", linewidth=1, linestyle=":")
            ax.set_yticks(range(len(chosen)), [
                "\n".join([*textwrap.wrap(claim["says"], CLAIM, max_lines=2, placeholder=" ..."),
                           told(each["cell"], found["grid"])]).strip() for _, claim, each in chosen], fontsize=7)
            ax.set_ylim(len(chosen) - 0.5, -0.5)
            differences = all("minus" in claim for _, claim, _ in chosen)
            ax.set_xlabel("difference of " * differences + name.replace("_", " "))
            plain_axes(ax)
        for verdict, colour in VERDICT_COLOURS.items():
            if any(each["verdict"] == verdict for _, _, each in rows):
                axes[0].plot([], [], "o-", color=colour, label=verdict)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=4, frameon=False,
                      fontsize=7)

    return ("Claims: mean and 95 % interval, against what is asked (line) and the mean to be reached (dotted)",
            (7.2, 0.42 * len(rows) + 0.5 * len(measures) + 0.6), on)
