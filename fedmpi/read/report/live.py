"""Running runs at a glance: a line each, their pace, the time left, and their curves."""

import numpy as np

from fedmpi.read.headline import headline, headline_of
from fedmpi.read.report.metrics import chosen
from fedmpi.read.report.pictures import curves, lettered_picture, picture
from fedmpi.read.report.text import human_bytes, human_seconds
from fedmpi.read.report.truth import options
from fedmpi.core.wide import aligned

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LOST = ("late", "dropped", "rejected", "failed")
NEEDED = {f"rounds/{name}" for name in ("round", "loss", "sparsity", "round_s", "recorded",
                                        "asked", "merged", "up_bytes", "down_bytes", *LOST)}  # to be read of several
ALONE = {"clients/client", "clients/contribution", "population"}                              # and of one
RECENT = 20                          # rounds that the pace is taken from


def needed_of(attrs):
    """The columns to be read of several runs of which one has these attributes."""
    leading = headline_of(attrs)
    return NEEDED | {f"rounds/{leading.name}", f"rounds/{leading.validation}"}


def pace(run):
    """Seconds a round: the median of the last RECENT rounds, None without any.

    Measured from one record to the next, all other work included; of a first round, and of files
    that do not record it, the rounds' own seconds."""
    seconds = run.rounds.get("round_s", np.empty(0))
    if len(run.rounds.get("recorded", ())) > 1:
        seconds = np.diff(run.rounds["recorded"])
    seconds = seconds[-RECENT:]
    seconds = seconds[np.isfinite(seconds)]
    if not len(seconds):
        return None
    return float(np.median(seconds))


def planned(run):
    """The number of rounds at which this run will end by itself.

    The recorded options are those of its first session: nobody knows whether a resumed one will
    stop earlier."""
    recorded = options(run)
    rounds = recorded.get("rounds") or len(run.ends)
    if len(run.sessions) > 1:
        return rounds
    return min(recorded.get("until") or rounds, rounds)


def left_s(run):
    """Seconds until a running run is done; None if nobody knows."""
    round_s = pace(run)
    if round_s is None or run.attrs.get("status") != "running":
        return None
    return round_s * max(planned(run) - len(run.ends), 0)


def board(runs, notes=(), width=100, height=30, colour=False):
    """The ``{name: Run}`` as text, at most ``width`` wide and ``height`` high: a table, then
    ``notes``, then curves.

    One run is drawn with its clients, several in their letters."""
    lines = table(runs, width) + list(notes)
    room = height - len(lines) - 1
    if room < 8:
        return "\n".join(lines[:height])
    if len(runs) == 1:
        only = next(iter(runs.values()))
        drawn = picture(only, width, room, colour)
    else:
        words = dict.fromkeys(headline(run).word for run in runs.values())
        drawn = lettered_picture(_test_curves(runs), width, room, colour, " or ".join(words))
    return "\n".join([*lines, "", drawn])


def _test_curves(runs):
    """[(letter, rounds, values)]."""
    found = []
    for letter, run in zip(_letters(len(runs)), runs.values()):
        found += [(letter, rounds, values) for name, rounds, values in curves(run) if name == "test"]
    return found


def table(runs, width=200):
    """The lines of a table with a row a run; columns to the right go if the width does not
    suffice."""
    several = len(runs) > 1
    rows = [_row(letter, name, run) for letter, (name, run) in zip(_letters(len(runs)), runs.items())]
    head = ["", "run", "status", "round", "left", _metric_head(runs), "best", "s/round", "clients", "lost", "clients/s",
            "sent/round", "sparsity"]
    left = (0, 1, 2)
    if not several:
        # A run that is alone needs no letter.
        head, rows, left = head[1:], [row[1:] for row in rows], (0, 1)
    while True:
        lines = aligned(head, rows, left=left)
        if max(map(len, lines)) <= width or len(head) <= 4:
            return [line[:width] for line in lines]
        head, rows = head[:-1], [row[:-1] for row in rows]


def _metric_head(runs):
    """The name of the column of headlines."""
    words = {headline(run).word for run in runs.values()}
    if len(words) > 1:
        return "headline"
    return words.pop()


def _letters(num):
    return [LETTERS[i % len(LETTERS)] for i in range(num)]


def _row(letter, name, run):
    rounds, T, round_s = run.rounds, len(run.ends), pace(run)
    status, asked = str(run.attrs.get("status", "")), _last(run, "asked")
    answered, rate = "-", None
    if asked is not None:
        answered = f"{_last(run, 'merged')}/{asked}"
        if round_s:
            rate = asked / round_s
    lost = sum(int(rounds[key].sum()) for key in LOST if key in rounds)
    latest, best = _latest_and_best(run)
    return (letter, name, status, f"{T}/{planned(run)}", _time_left(run), _number(latest, ".4f"), _number(best, ".4f"),
            _number(round_s, ".3g"), answered, str(lost), _number(rate, ".3g"),
            human_bytes(_sent_a_round(run)), _number(_last(run, "sparsity"), ".3f"))


def _number(value, form):
    if value is None:
        return "-"
    return format(value, form)


def _last(run, column):
    """The value of the last round, None without one; counts as int."""
    values = run.rounds.get(column, ())
    if not len(run.ends) or not len(values):
        return None
    if column == "sparsity":
        return values[-1]
    return int(values[-1])


def _latest_and_best(run):
    """The last test headline, and the one of the round that validation selects; None without
    one."""
    values = run.rounds.get(headline(run).name, np.empty(0))
    latest, best, best_round = None, None, chosen(run)
    finite = values[np.isfinite(values)]
    if len(finite):
        latest = finite[-1]
    if best_round is not None:
        best = float(values[best_round])
    return latest, best


def _time_left(run):
    left = left_s(run)
    if left is None:
        return "-"
    return human_seconds(left)


def _sent_a_round(run):
    if not len(run.ends):
        return 0
    columns = [run.rounds[key] for key in ("up_bytes", "down_bytes") if key in run.rounds]
    return sum(float(column.mean()) for column in columns)
