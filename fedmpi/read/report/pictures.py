"""Pictures of a run, in the terminal and for print: the learning curve, and contributions against
the truth."""

import math

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.read.headline import common_headline, headline
from fedmpi.read.report import draw
from fedmpi.read.report.figure import save_figure
from fedmpi.read.report.series import Line, mean_lines, prefix, runs_of
from fedmpi.read.report.statistics import tied
from fedmpi.read.report.truth import by_client, faulty, is_bad, quality

# Share of the rounds, at the end, that the picture of the contribution averages over.
LAST = 0.25
TITLE = "mean contribution, last quarter of rounds"
# The same for narrow pictures.
SHORT_TITLE = "mean contribution, last quarter"
UNEVALUATED = "no round has been evaluated yet"
WRONG, QUALITY = "true rate of wrong labels", "quality (1 = good client)"
# Two pictures stand side by side from so many characters on.
SIDE_BY_SIDE = 80
# Columns of the terminal from one letter, cross or tick of the x axis to the next.
LETTER_GAP, CROSS_GAP, TICK_GAP = 6, 4, 12
# The most ticks of a y axis.
Y_TICKS = 5


def curves(run):
    """[(label, rounds from 1, values)] of the learning curve; rounds without an evaluation are left
    out."""
    leading = headline(run)
    lines = []
    for name, label in ((leading.name, "test"), (leading.validation, "validation")):
        values = run.rounds.get(name, np.empty(0))
        rounds = np.flatnonzero(np.isfinite(values))
        if len(rounds):
            lines.append((label, rounds + 1, values[rounds]))
    return lines


def shares(run):
    """(title, x label, x, y) of contribution against quality; None of a run without scores.

    Noise takes the place of quality if only labels are wrong, samples if quality does not vary."""
    score = by_client(run, "contribution", LAST)
    if score is None or not np.isfinite(score).any():
        return None
    is_scored = np.isfinite(score)
    label, x = _truth_axis(run, len(score))
    x = np.asarray(x, float)
    return TITLE, label, x[is_scored], score[is_scored]


def _truth_axis(run, N):
    """``(label, x (N,))``: the axis for contributions."""
    truth = _of_clients(quality(run), N)
    if truth is not None and np.ptp(tied(truth)) > 0:
        noise = _of_clients(run.population.get("noise"), N)
        if noise is not None and np.allclose(truth, 1 - noise, rtol=0, atol=1e-12):
            return WRONG, noise
        return QUALITY, truth
    samples = _of_clients(run.population.get("samples"), N)
    if samples is not None:
        return "samples", samples
    return "client", np.arange(N)


def _of_clients(values, N):
    """The values if they are of N clients, else None."""
    if values is None or len(values) != N:
        return None
    return values


def _span(run, label, x):
    """The values that the x axis must cover: the truth of all clients, also of those never
    asked."""
    if label == WRONG:
        return run.population["noise"]
    if label == QUALITY:
        return quality(run)
    return x


# ---------------------------------------------------------------- in the terminal


def picture(run, width=100, height=22, colour=False):
    """The learning curve and the contribution of each client as text, at most ``width`` wide and
    ``height`` high.

    Side by side if 80 columns allow it. Without ``colour`` there are no escape codes in it."""
    panels = [_curve_panel(run), _share_panel(run)]
    return _built(panels, width, height, colour)


def curves_picture(groups, width=100, height=22, colour=False):
    """The test headline of Groups against rounds and against bytes sent, as text; a group is drawn
    in its letter."""
    panels = [_group_panel(groups, "rounds"), _group_panel(groups, "bytes")]
    return _built(panels, width, height, colour)


def lettered_picture(lines, width=100, height=22, colour=False, word="accuracy"):
    """A test metric, the ``word``, against rounds of several ``(letter, rounds (n,), values
    (n,))``, as text."""
    if not lines:
        return UNEVALUATED
    panel = _letter_panel(lines, "round", word, whole=True)
    return _built([panel], width, height, colour)


def _built(panels, width, height, colour):
    """The text of the panels; None stands for no panel. A panel is a function ``panel(place,
    width)``; it draws on a figure or a part of one."""
    panels = [panel for panel in panels if panel]
    if not panels:
        return UNEVALUATED
    import plotext

    # The library has this one figure only.
    figure = plotext.figure
    figure.clear()
    plotext.terminal.limit(False, False)
    figure.plot_size(width, height)
    theme = "simple" if colour else "colorless"
    for place, panel_width, panel in _placed(figure, panels, width):
        panel(place.theme(theme), panel_width)
    text = figure.build().string(colorless=not colour)
    figure.clear()
    lines = text.rstrip("\n").split("\n")
    return "\n".join(line.rstrip() for line in lines)


def _placed(figure, panels, width):
    """(place on the figure, its width, panel) of one or two panels: side by side if there is
    room."""
    if len(panels) == 1:
        yield figure, width, panels[0]
    elif width >= SIDE_BY_SIDE:
        figure.subplots(1, 2)
        for number, panel in enumerate(panels, 1):
            yield figure.subplot(1, number), width // len(panels), panel
    else:
        figure.subplots(2, 1)
        for number, panel in enumerate(panels, 1):
            yield figure.subplot(number, 1), width, panel


def _group_panel(groups, axis):
    leading = common_headline(runs_of(groups))
    lines = mean_lines(groups, leading.name, axis)
    if lines is None:
        return None
    factor, label = 1.0, "round"
    if axis == "bytes":
        most = max(line.x.max() for line in lines)
        factor, letter = prefix(most)
        label = f"{letter}B sent, up and down"
    lettered = []
    for group, line in zip(groups, lines):
        lettered.append((group.tag, line.x / factor, line.y))
    return _letter_panel(lettered, label, leading.word, whole=axis == "rounds")


def _letter_panel(lines, label, word, whole):
    """A panel of lines, with a letter on each every few columns."""
    def panel(place, width):
        for _, x, y in lines:
            _draw_line(place, x, y)
        # Letters come last, so that no line hides them.
        for letter, x, y in lines:
            every = _every(x, width // LETTER_GAP)
            # From the end backwards, since lines differ most at their ends.
            _draw_marks(place, x[::-every], y[::-every], letter)
        place.title(f"test {word}")
        _label_axes(place, width, label, [line[1:] for line in lines], whole)

    return panel


def _every(x, most):
    """The step by which at most ``most`` of the points ``x`` are taken."""
    return math.ceil(len(x) / max(1, most))


def _curve_panel(run):
    lines = curves(run)
    if not lines:
        return None

    def panel(place, width):
        names = []
        for label, x, y in lines:
            if label == "test":
                _draw_line(place, x, y)
                names.append(f"line: {label}")
            else:
                # Only so many marks that the line shows through.
                every = _every(x, width // CROSS_GAP)
                _draw_marks(place, x[::every], y[::every], "x")
                names.append(f"x: {label}")
        place.title(f"{headline(run).word} ({', '.join(names)})")
        _label_axes(place, width, "round", [line[1:] for line in lines], whole=True)

    return panel


def _share_panel(run):
    points = shares(run)
    if points is None:
        return None
    title, label, x, y = points
    are_whole_numbers = label not in (WRONG, QUALITY)

    def panel(place, width):
        _draw_marks(place, x, y, "o")
        fits = len(title) < width - 4
        place.title(title if fits else SHORT_TITLE)
        span = _span(run, label, x)
        _label_axes(place, width, label, [(span, y)], whole=are_whole_numbers)

    return panel


def _draw_line(place, x, y):
    signal = place.signal(np.asarray(x).tolist(), np.asarray(y).tolist(), marker="braille")
    place.draw(signal.lines(True))


def _draw_marks(place, x, y, marker):
    signal = place.signal(np.asarray(x).tolist(), np.asarray(y).tolist(), marker=marker)
    place.draw(signal.lines(False))


def _label_axes(place, width, label, series, whole):
    """Ticks on both axes for all of ``series`` [(x, y)], and a label below; ``whole``: x counts."""
    _rule(place, "x", [x for x, _ in series], width // TICK_GAP, whole)
    _rule(place, "y", [y for _, y in series], Y_TICKS)
    place.label(label, axis="x")


def _rule(place, axis, series, most, whole=False):
    """Limits and at most ``most`` + 1 ticks of an axis for all of ``series``."""
    values = np.concatenate(series)
    low = float(np.min(values))
    high = float(np.max(values))
    ticks, labels = nice_ticks(low, high, max(2, most), whole)
    start = min(low, ticks[0])
    end = max(high, ticks[-1])
    place.ruler(axis).lim(start, end).ticks(ticks, labels)


def nice_ticks(low, high, most, whole=False):
    """At most ``most`` + 1 round positions from ``low`` or below to ``high`` or below, with their
    labels."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / most)
    magnitude = math.floor(math.log10(step))
    digits = max(0, -magnitude)
    if whole:
        step = max(step, 1.0)
        digits = 0
    # A rounding error must not lose a tick that stands at an end.
    first = math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9)
    last = max(last, first + 1)
    ticks = [number * step for number in range(first, last + 1)]
    return ticks, [f"{tick:.{digits}f}" for tick in ticks]


def _round_step(least_step):
    """The next number of 1, 2, 5, 10, 20 ... (or 0.1, 0.2, 0.5 ...)."""
    power = 10.0 ** math.floor(math.log10(least_step))
    steps = [factor * power for factor in (1, 2, 5, 10)]
    return next(step for step in steps if step >= least_step * (1 - 1e-9))


# ---------------------------------------------------------------- for print


def save_picture(run, path):
    """Writes the same two panels for print; the kind follows the extension: png, svg or pdf."""
    lines, points = curves(run), shares(run)
    num_panels = bool(lines) + (points is not None)
    if not num_panels:
        raise UserError(f"{path}: no round has been evaluated yet, there is nothing to draw")

    def show(figure):
        axes = list(np.ravel(figure.subplots(1, num_panels)))
        if lines:
            named = [Line(*line) for line in lines]
            draw.lines(axes[0], named, "round", headline(run).word, whole=True)
        if points is not None:
            draw_shares(axes[-1], run, points)

    save_figure(path, (3.4 * num_panels, 2.6), show)


def draw_shares(ax, run, points):
    """The ``shares`` as points on ``ax``, good and bad clients apart."""
    _, label, x, y = points
    unit = {WRONG: " (fraction)", "samples": " (count)"}.get(label, "")
    kinds = []
    for rows, name in _kinds(run, label, x):
        if rows.any():
            kinds.append((name, x[rows], y[rows]))
    ylabel = f"contribution, last quarter{_unit(run, 'contribution')}"
    draw.points(ax, kinds, label + unit, ylabel)


def _kinds(run, label, x):
    """``[(points (n,) bool, name)]``: the good and the bad clients, if the axis shows this, else
    all clients."""
    if label not in (WRONG, QUALITY):
        return [(np.ones(len(x), bool), "clients")]
    is_scored = np.isfinite(by_client(run, "contribution", LAST))
    bad = is_bad(tied(quality(run)), faulty(run))[is_scored]
    if label == WRONG:
        return [(~bad, "clean"), (bad, "noisy")]
    return [(~bad, "good"), (bad, "bad")]


def _unit(run, name):
    column = run.columns.get(f"clients/{name}")
    if column is None or column.unit in ("", "1"):
        return ""
    return f" ({column.unit})"
