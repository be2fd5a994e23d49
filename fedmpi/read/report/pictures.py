"""Pictures of a run, in the terminal and for print: the learning curve, and what contributions make of the truth."""

import math

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.read.headline import common_headline, headline
from fedmpi.read.report import draw
from fedmpi.read.report.figure import save_figure
from fedmpi.read.report.series import Line, mean_lines, prefix
from fedmpi.read.report.statistics import tied
from fedmpi.read.report.truth import by_client, faulty, is_bad, quality

LAST = 0.25  # share of the rounds, at the end, that the picture of the contribution averages over
SHORT = "mean contribution, last quarter"            # where there is no room for the whole title
UNEVALUATED = "no round has been evaluated yet"
WRONG, QUALITY = "true rate of wrong labels", "quality (1 = good client)"


def curves(run):
    """[(label, rounds from 1, values)] of the learning curve, without the rounds that were not evaluated."""
    found = []
    for name, label in ((headline(run).name, "test"), (headline(run).validation, "validation")):
        values = run.rounds.get(name, np.empty(0))
        known = np.flatnonzero(np.isfinite(values))
        if len(known):
            found.append((label, known + 1, values[known]))
    return found


def shares(run):
    """(title, x label, x, y) of contribution against quality (noise where there is nothing but noise), against samples
    where quality does not vary; or None."""
    score = by_client(run, "contribution", LAST)
    if score is None or not np.isfinite(score).any():
        return None
    label, x = _truth_axis(run, len(score))
    known = np.isfinite(score)
    return "mean contribution, last quarter of rounds", label, np.asarray(x, float)[known], score[known]


def _truth_axis(run, N):
    """``(label, x (N,))``: what contributions are drawn against."""
    truth, noise, samples = quality(run), run.population.get("noise"), run.population.get("samples")
    if truth is not None and len(truth) == N and np.ptp(tied(truth)) > 0:
        only_noise = noise is not None and len(noise) == N and np.allclose(truth, 1 - noise, rtol=0, atol=1e-12)
        return (WRONG, noise) if only_noise else (QUALITY, truth)
    return ("samples", samples) if samples is not None and len(samples) == N else ("client", np.arange(N))


def _span(run, label, x):
    """What the x axis must hold: all clients' truth, also of those that took no part."""
    return run.population["noise"] if label == WRONG else quality(run) if label == QUALITY else x


# ---------------------------------------------------------------- in the terminal


def picture(run, width=100, height=22, colour=False):
    """The learning curve and the contribution of each client as text, at most ``width`` wide and ``height`` high.

    Side by side where 80 columns allow it. Without ``colour`` there are no escape codes in it."""
    panels = [p for p in (_curve_panel(run), _share_panel(run)) if p]
    return _built(panels, width, height, colour) if panels else UNEVALUATED


def curves_picture(groups, width=100, height=22, colour=False):
    """The test headline of Groups against rounds and against bytes sent, as text; a group is drawn in its letter."""
    panels = [p for p in (_group_panel(groups, "rounds"), _group_panel(groups, "bytes")) if p]
    return _built(panels, width, height, colour) if panels else UNEVALUATED


def lettered_picture(lines, width=100, height=22, colour=False, word="accuracy"):
    """A test metric, the ``word``, against rounds of several ``(letter, rounds (n,), values (n,))``, as text."""
    return _built([_letter_panel(lines, "round", word, whole=True)], width, height, colour) if lines else UNEVALUATED


def _built(panels, width, height, colour):
    import plotext

    figure = plotext.figure  # the library has this one only
    figure.clear()
    plotext.terminal.limit(False, False)
    side = width >= 80
    figure.plot_size(width, height)
    if len(panels) > 1:
        figure.subplots(1, 2) if side else figure.subplots(2, 1)
    for i, panel in enumerate(panels):
        place = figure if len(panels) == 1 else figure.subplot(*((1, i + 1) if side else (i + 1, 1)))
        panel(place.theme("simple" if colour else "colorless"), width // len(panels) if side else width)
    text = figure.build().string(colorless=not colour)
    figure.clear()
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


def _group_panel(groups, axis):
    leading = common_headline([run for group in groups for run in group.runs.values()])
    lines = mean_lines(groups, leading.name, axis)
    if lines is None:
        return None
    factor, letter = prefix(max(line.x.max() for line in lines)) if axis == "bytes" else (1.0, "")
    label = "round" if axis == "rounds" else f"{letter}B sent, up and down"
    return _letter_panel([(group.tag, line.x / factor, line.y) for group, line in zip(groups, lines)], label,
                         leading.word, whole=axis == "rounds")


def _letter_panel(lines, label, word, whole):
    """Lines, then a letter on each every few columns."""
    def panel(place, width):
        for _, x, y in lines:
            place.draw(_signal(place, x, y, "braille", joined=True))
        for letter, x, y in lines:
            every = math.ceil(len(x) / max(1, width // 6))
            place.draw(_signal(place, x[::-every], y[::-every], letter))
        place.title(f"test {word}")
        _rule(place, "x", [x for _, x, _ in lines], width // 12, whole)
        _rule(place, "y", [y for *_, y in lines], 5)
        place.label(label, axis="x")

    return panel


def _curve_panel(run):
    lines = curves(run)
    if not lines:
        return None

    def panel(place, width):
        keys = []
        for (label, x, y), (marker, sign) in zip(lines, (("braille", "line"), ("x", "x"))):
            every = 1 if sign == "line" else math.ceil(len(x) / max(1, width // 4))  # marks that let the line through
            place.draw(_signal(place, x[::every], y[::every], marker, joined=sign == "line"))
            keys.append(f"{sign}: {label}")
        place.title(f"{headline(run).word} ({', '.join(keys)})")
        _rule(place, "x", [x for _, x, _ in lines], width // 12, whole=True)
        _rule(place, "y", [y for _, _, y in lines], 5)
        place.label("round", axis="x")

    return panel


def _share_panel(run):
    found = shares(run)
    if found is None:
        return None
    title, label, x, y = found

    def panel(place, width):
        place.draw(_signal(place, x, y, "o"))
        place.title(title if len(title) < width - 4 else SHORT)
        _rule(place, "x", [_span(run, label, x)], width // 12, whole=label not in (WRONG, QUALITY))
        _rule(place, "y", [y], 5)
        place.label(label, axis="x")

    return panel


def _signal(place, x, y, marker, joined=False):
    return place.signal(np.asarray(x).tolist(), np.asarray(y).tolist(), marker=marker).lines(joined)


def _rule(place, axis, series, most, whole=False):
    low, high = min(np.min(s) for s in series), max(np.max(s) for s in series)
    ticks, labels = nice_ticks(float(low), float(high), max(2, most), whole)
    place.ruler(axis).lim(min(float(low), ticks[0]), max(float(high), ticks[-1])).ticks(ticks, labels)


def nice_ticks(low, high, most, whole=False):
    """At most ``most`` + 1 round positions from ``low`` or below to ``high`` or below, with their labels."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9)
    digits = 0 if whole else max(0, -math.floor(math.log10(step)))
    ticks = [i * step for i in range(first, max(last, first + 1) + 1)]
    return ticks, [f"{t:.{digits}f}" for t in ticks]


# ---------------------------------------------------------------- for print


def save_picture(run, path):
    """Writes the same two panels for print; the kind follows the extension: png, svg or pdf."""
    lines, points = curves(run), shares(run)
    num = bool(lines) + (points is not None)

    def show(figure):
        axes = list(np.ravel(figure.subplots(1, num)))
        if lines:
            draw.lines(axes.pop(0), [Line(*each) for each in lines], "round", headline(run).word, whole=True)
        if points is not None:
            draw_shares(axes.pop(0), run, points)

    if not num:
        raise UserError(f"{path}: no round has been evaluated yet, there is nothing to draw")
    save_figure(path, (3.4 * num, 2.6), show)


def draw_shares(ax, run, points):
    """What ``shares`` found as points on ``ax``, good and bad clients apart."""
    title, label, x, y = points
    unit = {WRONG: " (fraction)", "samples": " (count)"}.get(label, "")
    kinds = [(name, x[chosen], y[chosen]) for chosen, name in _kinds(run, label, x) if chosen.any()]
    draw.points(ax, kinds, label + unit, "contribution, last quarter" + _unit(run, "contribution"))


def _kinds(run, label, x):
    """``[(points (n,) bool, name)]``: the good and the bad clients, where that is what is drawn."""
    if label not in (WRONG, QUALITY):
        return [(np.ones(len(x), bool), "clients")]
    truth = tied(quality(run))
    known = np.isfinite(by_client(run, "contribution", LAST))
    bad = is_bad(truth, faulty(run))[known]
    good, poor = ("clean", "noisy") if label == WRONG else ("good", "bad")
    return [(~bad, good), (bad, poor)]


def _unit(run, name):
    column = run.columns.get(f"clients/{name}")
    return "" if column is None or column.unit in ("", "1") else f" ({column.unit})"
