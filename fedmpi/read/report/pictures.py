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
        is_evaluated = np.isfinite(values)
        rounds = np.flatnonzero(is_evaluated)
        if len(rounds):
            values_there = values[rounds]
            numbers = rounds + 1
            lines.append((label, numbers, values_there))
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
    x_scored = x[is_scored]
    scored = score[is_scored]
    return TITLE, label, x_scored, scored


def _truth_axis(run, N):
    """``(label, x (N,))``: the axis for contributions."""
    truth = _of_clients(quality(run), N)
    # Equal truths would stand in one column.
    if truth is not None and np.ptp(tied(truth)) > 0:
        noise_of_clients = run.population.get("noise")
        noise = _of_clients(noise_of_clients, N)
        only_labels_are_wrong = np.allclose(truth, 1 - noise, rtol=0, atol=1e-12)
        if noise is not None and only_labels_are_wrong:
            return WRONG, noise
        return QUALITY, truth
    num_samples = run.population.get("samples")
    samples = _of_clients(num_samples, N)
    if samples is not None:
        return "samples", samples
    numbers = np.arange(N)
    return "client", numbers


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
    curve = _curve_panel(run)
    share = _share_panel(run)
    panels = [curve, share]
    return _built(panels, width, height, colour)


def curves_picture(groups, width=100, height=22, colour=False):
    """The test headline of Groups against rounds and against bytes sent, as text; a group is drawn
    in its letter."""
    by_rounds = _group_panel(groups, "rounds")
    by_bytes = _group_panel(groups, "bytes")
    panels = [by_rounds, by_bytes]
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
        themed = place.theme(theme)
        panel(themed, panel_width)
    built = figure.build()
    text = built.string(colorless=not colour)
    figure.clear()
    without_end = text.rstrip("\n")
    lines = without_end.split("\n")
    return "\n".join(line.rstrip() for line in lines)


def _placed(figure, panels, width):
    """(place on the figure, its width, panel) of one or two panels: side by side if there is
    room."""
    if len(panels) == 1:
        only = panels[0]
        yield figure, width, only
    elif width >= SIDE_BY_SIDE:
        figure.subplots(1, 2)
        for number, panel in enumerate(panels, 1):
            place = figure.subplot(1, number)
            half = width // len(panels)
            yield place, half, panel
    else:
        figure.subplots(2, 1)
        for number, panel in enumerate(panels, 1):
            yield figure.subplot(number, 1), width, panel


def _group_panel(groups, axis):
    runs = runs_of(groups)
    leading = common_headline(runs)
    lines = mean_lines(groups, leading.name, axis)
    if lines is None:
        return None
    factor = 1.0
    label = "round"
    # One prefix for all lines: they share the axis.
    if axis == "bytes":
        most = max(line.x.max() for line in lines)
        factor, letter = prefix(most)
        label = f"{letter}B sent, up and down"
    lettered = []
    for group, line in zip(groups, lines):
        x = line.x / factor
        lettered.append((group.tag, x, line.y))
    are_whole = axis == "rounds"
    return _letter_panel(lettered, label, leading.word, whole=are_whole)


def _letter_panel(lines, label, word, whole):
    """A panel of lines, with a letter on each every few columns."""
    def panel(place, width):
        for _, x, y in lines:
            _draw_line(place, x, y)
        # Letters come last, so that no line hides them.
        for letter, x, y in lines:
            most_letters = width // LETTER_GAP
            every = _every(x, most_letters)
            x_shown = x[::-every]
            y_shown = y[::-every]
            # From the end backwards, since lines differ most at their ends.
            _draw_marks(place, x_shown, y_shown, letter)
        place.title(f"test {word}")
        _label_axes(place, width, label, [line[1:] for line in lines], whole)

    return panel


def _every(x, most):
    """The step by which at most ``most`` of the points ``x`` are taken."""
    at_least_one = max(1, most)
    step = len(x) / at_least_one
    return math.ceil(step)


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
                most_crosses = width // CROSS_GAP
                # Only so many marks that the line shows through.
                every = _every(x, most_crosses)
                x_shown = x[::every]
                y_shown = y[::every]
                _draw_marks(place, x_shown, y_shown, "x")
                # The title serves as the legend: a terminal has no room for one.
                names.append(f"x: {label}")
        listed = ", ".join(names)
        place.title(f"{headline(run).word} ({listed})")
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
        room = width - 4
        fits = len(title) < room
        place.title(title if fits else SHORT_TITLE)
        span = _span(run, label, x)
        _label_axes(place, width, label, [(span, y)], whole=are_whole_numbers)

    return panel


def _draw_line(place, x, y):
    all_x = np.asarray(x).tolist()
    all_y = np.asarray(y).tolist()
    signal = place.signal(all_x, all_y, marker="braille")
    drawn = signal.lines(True)
    place.draw(drawn)


def _draw_marks(place, x, y, marker):
    all_x = np.asarray(x).tolist()
    all_y = np.asarray(y).tolist()
    signal = place.signal(all_x, all_y, marker=marker)
    drawn = signal.lines(False)
    place.draw(drawn)


def _label_axes(place, width, label, series, whole):
    """Ticks on both axes for all of ``series`` [(x, y)], and a label below; ``whole``: x counts."""
    all_x = [x for x, _ in series]
    most_x_ticks = width // TICK_GAP
    _rule(place, "x", all_x, most_x_ticks, whole)
    all_y = [y for _, y in series]
    _rule(place, "y", all_y, Y_TICKS)
    place.label(label, axis="x")


def _rule(place, axis, series, most, whole=False):
    """Limits and at most ``most`` + 1 ticks of an axis for all of ``series``."""
    values = np.concatenate(series)
    low = float(np.min(values))
    high = float(np.max(values))
    most_ticks = max(2, most)
    ticks, labels = nice_ticks(low, high, most_ticks, whole)
    first = ticks[0]
    start = min(low, first)
    last = ticks[-1]
    end = max(high, last)
    ruler = place.ruler(axis)
    ruler.lim(start, end).ticks(ticks, labels)


def nice_ticks(low, high, most, whole=False):
    """At most ``most`` + 1 round positions from ``low`` or below to ``high`` or below, with their
    labels."""
    # One value alone, or the same everywhere: a range of one around it.
    if high <= low:
        low = low - 0.5
        high = high + 0.5
    least_step = (high - low) / most
    step = _round_step(least_step)
    exponent = math.log10(step)
    magnitude = math.floor(exponent)
    digits = max(0, -magnitude)
    if whole:
        step = max(step, 1.0)
        digits = 0
    # A rounding error must not lose a tick that stands at an end.
    first = math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9)
    last = max(last, first + 1)
    end = last + 1
    numbers = range(first, end)
    ticks = [number * step for number in numbers]
    labels = [f"{tick:.{digits}f}" for tick in ticks]
    return ticks, labels


def _round_step(least_step):
    """The next number of 1, 2, 5, 10, 20 ... (or 0.1, 0.2, 0.5 ...)."""
    exponent = math.log10(least_step)
    power = 10.0 ** math.floor(exponent)
    steps = [factor * power for factor in (1, 2, 5, 10)]
    lowest = least_step * (1 - 1e-9)
    return next(step for step in steps if step >= lowest)


# ---------------------------------------------------------------- for print


def save_picture(run, path):
    """Writes the same two panels for print; the kind follows the extension: png, svg or pdf."""
    lines = curves(run)
    points = shares(run)
    num_panels = bool(lines) + (points is not None)
    if not num_panels:
        raise UserError(f"{path}: no round has been evaluated yet, there is nothing to draw")

    def show(figure):
        # A single panel comes without an array around it.
        grid = np.ravel(figure.subplots(1, num_panels))
        axes = list(grid)
        if lines:
            named = [Line(*line) for line in lines]
            word = headline(run).word
            draw.lines(axes[0], named, "round", word, whole=True)
        if points is not None:
            draw_shares(axes[-1], run, points)

    width_in = 3.4 * num_panels
    save_figure(path, (width_in, 2.6), show)


def draw_shares(ax, run, points):
    """The ``shares`` as points on ``ax``, good and bad clients apart."""
    _, label, x, y = points
    units = {WRONG: " (fraction)", "samples": " (count)"}
    unit = units.get(label, "")
    kinds = []
    for rows, name in _kinds(run, label, x):
        if rows.any():
            kinds.append((name, x[rows], y[rows]))
    unit_of_scores = _unit(run, "contribution")
    ylabel = f"contribution, last quarter{unit_of_scores}"
    xlabel = label + unit
    draw.points(ax, kinds, xlabel, ylabel)


def _kinds(run, label, x):
    """``[(points (n,) bool, name)]``: the good and the bad clients, if the axis shows this, else
    all clients."""
    if label not in (WRONG, QUALITY):
        all_rows = np.ones(len(x), bool)
        return [(all_rows, "clients")]
    is_scored = np.isfinite(by_client(run, "contribution", LAST))
    truth = tied(quality(run))
    is_faulty = faulty(run)
    bad = is_bad(truth, is_faulty)[is_scored]
    if label == WRONG:
        return [(~bad, "clean"), (bad, "noisy")]
    return [(~bad, "good"), (bad, "bad")]


def _unit(run, name):
    column = run.columns.get(f"clients/{name}")
    # "1" is the unit of a count or a share.
    if column is None or column.unit in ("", "1"):
        return ""
    return f" ({column.unit})"
