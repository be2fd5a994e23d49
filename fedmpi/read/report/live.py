"""Running runs at a glance: a line each, their pace, the time left, and their curves."""

import numpy as np

from fedmpi.read.headline import headline, headline_of
from fedmpi.read.report.metrics import chosen
from fedmpi.read.report.pictures import curves, lettered_picture, picture
from fedmpi.read.report.text import LOST, human_bytes, human_seconds, measure_text
from fedmpi.read.report.truth import options
from fedmpi.core.wide import aligned

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Columns of /rounds that the board reads of several runs.
ROUND_COLUMNS = (
    "round", "loss", "sparsity", "round_s", "recorded", "asked", "merged", "up_bytes", "down_bytes",
    *LOST)
NEEDED = {f"rounds/{name}" for name in ROUND_COLUMNS}
# The board of one run also draws its clients.
ALONE = {"clients/client", "clients/contribution", "population"}
# The pace is that of so many rounds.
RECENT = 20
# Curves in fewer lines cannot be read.
LEAST_HEIGHT = 8
# These columns stay, however narrow the terminal.
LEAST_COLUMNS = 4


def needed_of(attrs):
    """The columns to be read of several runs, one with these attributes."""
    leading = headline_of(attrs)
    return NEEDED | {f"rounds/{leading.name}", f"rounds/{leading.validation}"}


def pace(run):
    """Seconds a round: the median of the last RECENT rounds, None without any.

    Measured from one record to the next, all other work included; of a first round, and of old
    files, the rounds' own seconds."""
    seconds = run.rounds.get("round_s", np.empty(0))
    recorded = run.rounds.get("recorded", ())
    if len(recorded) > 1:
        seconds = np.diff(recorded)
    recent = seconds[-RECENT:]
    is_known = np.isfinite(recent)
    recent = recent[is_known]
    if not len(recent):
        return None
    median_s = np.median(recent)
    return float(median_s)


def planned(run):
    """The last round of this run if nothing stops it. The recorded options are of its first
    session: nobody knows whether a resumed one will stop earlier."""
    recorded = options(run)
    rounds = recorded.get("rounds") or len(run.ends)
    if len(run.sessions) > 1:
        return rounds
    until = recorded.get("until") or rounds
    return min(until, rounds)


def left_s(run):
    """Seconds until a running run is done; None if nobody knows."""
    round_s = pace(run)
    if round_s is None or run.attrs.get("status") != "running":
        return None
    rounds_left = planned(run) - len(run.ends)
    return round_s * max(rounds_left, 0)


def board(runs, notes=(), width=100, height=30, colour=False):
    """The ``{name: Run}`` as text, at most ``width`` wide and ``height`` high: a table, then
    ``notes``, then curves.

    One run is drawn with its clients, several in their letters."""
    lines = [*table(runs, width), *notes]
    num_lines = len(lines)
    # A blank line stands between the table and the curves.
    room = height - num_lines - 1
    if room < LEAST_HEIGHT:
        shown = lines[:height]
        return "\n".join(shown)
    drawing = _drawing(runs, width, room, colour)
    return "\n".join([*lines, "", drawing])


def _drawing(runs, width, height, colour):
    if len(runs) == 1:
        only_run = next(iter(runs.values()))
        return picture(only_run, width, height, colour)
    words = dict.fromkeys(headline(run).word for run in runs.values())
    word = " or ".join(words)
    lines = _test_curves(runs)
    return lettered_picture(lines, width, height, colour, word)


def _test_curves(runs):
    """[(letter, rounds, values)] of the runs with an evaluated round."""
    lines = []
    for letter, run in zip(_letters(len(runs)), runs.values()):
        for name, rounds, values in curves(run):
            if name == "test":
                lines.append((letter, rounds, values))
    return lines


def table(runs, width=200):
    """The lines of a table with a row a run; columns to the right go if the width does not
    suffice."""
    words = {headline(run).word for run in runs.values()}
    metric = words.pop() if len(words) == 1 else "headline"
    rows = [_row(name, run, metric) for name, run in runs.items()]
    columns = {}
    for head in rows[0]:
        columns[head] = [row[head] for row in rows]
    # Names and states are words; numbers stand to the right.
    left = (0, 1)
    if len(runs) > 1:
        columns = {"": _letters(len(runs)), **columns}
        left = (0, 1, 2)
    lines = _aligned(columns, left)
    while max(map(len, lines)) > width and len(columns) > LEAST_COLUMNS:
        # The last column matters least.
        columns.popitem()
        lines = _aligned(columns, left)
    return [line[:width] for line in lines]


def _aligned(columns, left):
    """The lines of a table of ``{head: [text]}``."""
    texts = columns.values()
    rows = list(zip(*texts))
    return aligned(list(columns), rows, left=left)


def _letters(num):
    return [LETTERS[i % len(LETTERS)] for i in range(num)]


def _row(name, run, metric):
    """``{head: text}`` of a run, the most important first; ``metric``: the head of headlines."""
    latest, best = _latest_and_best(run)
    round_s = pace(run)
    asked = _last(run, "asked")
    answered = "-"
    rate = None
    if asked is not None:
        merged = _last(run, "merged")
        answered = f"{merged}/{asked}"
        if round_s:
            rate = asked / round_s
    lost = _num_lost(run.rounds)
    sent_bytes = _sent_a_round(run)
    sparsity = _last(run, "sparsity")
    return {
        "run": name,
        "status": str(run.attrs.get("status", "")),
        "round": f"{len(run.ends)}/{planned(run)}",
        "left": _time_left(run),
        metric: _measure(latest),
        "best": _measure(best),
        "s/round": _number(round_s, ".3g"),
        "clients": answered,
        "lost": str(lost),
        "clients/s": _number(rate, ".3g"),
        "sent/round": human_bytes(sent_bytes),
        "sparsity": _number(sparsity, ".3f"),
    }


def _num_lost(rounds):
    """Lost answers of all rounds."""
    return sum(int(rounds[name].sum()) for name in LOST if name in rounds)


def _measure(value):
    if value is None:
        return "-"
    return measure_text(value)


def _number(value, form):
    if value is None:
        return "-"
    return format(value, form)


def _last(run, column):
    """The value of the last round, None without one; counts as int."""
    values = run.rounds.get(column, ())
    if not len(run.ends) or not len(values):
        return None
    # All other columns of the board are counts.
    if column == "sparsity":
        return values[-1]
    return int(values[-1])


def _latest_and_best(run):
    """The last test headline, and the one of the round selected by validation; None without one."""
    leading = headline(run)
    values = run.rounds.get(leading.name, np.empty(0))
    latest = best = None
    is_evaluated = np.isfinite(values)
    finite = values[is_evaluated]
    if len(finite):
        latest = finite[-1]
    best_round = chosen(run)
    if best_round is not None:
        best = float(values[best_round])
    return latest, best


def _time_left(run):
    left = left_s(run)
    if left is None:
        return "-"
    return human_seconds(left)


def _sent_a_round(run):
    num_rounds = len(run.ends)
    if not num_rounds:
        return 0
    columns = [run.rounds[key] for key in ("up_bytes", "down_bytes") if key in run.rounds]
    return sum(float(column.mean()) for column in columns)
