"""Runs that go on, at a glance: a line each, how fast they are, when they will be done, and their curves."""

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
    """Seconds a round, the median of the last RECENT from one record to the next, what else was done included; of the
    one round, or of files that do not record it, the rounds' own seconds; None where there are none."""
    spent = run.rounds.get("round_s", np.empty(0))
    if len(run.rounds.get("recorded", ())) > 1:
        spent = np.diff(run.rounds["recorded"])
    spent = spent[-RECENT:]
    spent = spent[np.isfinite(spent)]
    return float(np.median(spent)) if len(spent) else None


def planned(run):
    """Rounds that this run will have when it ends by itself. The options recorded are those of its first session, so
    that nobody knows where a resumed one is to stop before its last round."""
    given = options(run)
    rounds = given.get("rounds") or len(run.ends)
    return min(given.get("until") or rounds, rounds) if len(run.sessions) < 2 else rounds


def left_s(run):
    """Seconds until a running run is done; None where nobody knows."""
    each = pace(run)
    return None if each is None or run.attrs.get("status") != "running" else each * max(planned(run) - len(run.ends), 0)


def board(runs, notes=(), width=100, height=30, colour=False):
    """The ``{name: Run}`` as text, at most ``width`` wide and ``height`` high: a table, then ``notes``, then curves, of
    one run with its clients, of several drawn in their letters."""
    lines = table(runs, width) + list(notes)
    room = height - len(lines) - 1
    if room < 8:
        return "\n".join(lines[:height])
    if len(runs) == 1:
        drawn = picture(next(iter(runs.values())), width, room, colour)
    else:
        found = [(letter, *curve) for letter, run in zip(_letters(len(runs)), runs.values())
                 for name, *curve in curves(run) if name == "test"]
        words = dict.fromkeys(headline(run).word for run in runs.values())
        drawn = lettered_picture(found, width, room, colour, " or ".join(words))
    return "\n".join([*lines, "", drawn])


def table(runs, width=200):
    """The lines of a table with a row a run; columns to the right go where the width does not suffice."""
    several = len(runs) > 1
    rows = [_row(letter, name, run) for letter, (name, run) in zip(_letters(len(runs)), runs.items())]
    head = ["", "run", "status", "round", "left", _metric_head(runs), "best", "s/round", "clients", "lost", "clients/s",
            "sent/round", "sparsity"]
    columns = [number for number in range(len(head)) if several or number]
    while True:
        lines = aligned([head[c] for c in columns], [[row[c] for c in columns] for row in rows],
                        left=(0, 1, 2) if several else (0, 1))
        if max(map(len, lines)) <= width or len(columns) <= 4:
            return [line[:width] for line in lines]
        columns.pop()


def _metric_head(runs):
    """The name of the column of headlines."""
    words = {headline(run).word for run in runs.values()}
    return words.pop() if len(words) == 1 else "headline"


def _letters(num):
    return [LETTERS[i % len(LETTERS)] for i in range(num)]


def _row(letter, name, run):
    rounds, T, each, left = run.rounds, len(run.ends), pace(run), left_s(run)
    name_of_metric = headline(run).name
    best = chosen(run)                           # the test headline of the round that validation chooses
    best = None if best is None else float(rounds[name_of_metric][best])
    values = rounds.get(name_of_metric, np.empty(0))
    values = values[np.isfinite(values)]
    asked, merged = (int(rounds[key][-1]) if T and key in rounds else None for key in ("asked", "merged"))
    lost = sum(int(rounds[key].sum()) for key in LOST if key in rounds)
    sent = sum(float(rounds[key].mean()) for key in ("up_bytes", "down_bytes") if key in rounds) if T else 0
    rate = asked / each if asked is not None and each else None

    def number(value, form):
        return "-" if value is None else format(value, form)

    return (letter, name, str(run.attrs.get("status", "")), f"{T}/{planned(run)}",
            "-" if left is None else human_seconds(left),
            number(values[-1] if len(values) else None, ".4f"),
            number(best, ".4f"),
            number(each, ".3g"), "-" if asked is None else f"{merged}/{asked}", str(lost), number(rate, ".3g"),
            human_bytes(sent), number(rounds["sparsity"][-1] if T and "sparsity" in rounds else None, ".3f"))
