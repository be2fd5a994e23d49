"""Clients that were asked, by round: merged, late, lost."""

import numpy as np

from fedmpi.read.report import draw as drawing
from fedmpi.read.report.text import OUTCOMES as LOST

OUTCOMES = {"merged": "merged"} | LOST
BARS = 60                         # of a long run


def find(run):
    """``(parts, x, sums)``: ``parts`` [(outcome, (n,) clients a round, its look)] over n bars at
    ``x (n,)``, ``sums`` {column: clients of all rounds}. None where all that were asked were
    merged."""
    rounds = run.rounds
    if not {"asked", "merged"} <= set(rounds):
        return None
    if (rounds["asked"] == rounds["merged"]).all():
        return None
    T = len(run.ends)
    rounds_a_bar = -(-T // BARS)
    starts = np.arange(0, T, rounds_a_bar)
    sizes = np.diff(np.append(starts, T))
    parts = []
    for number, (name, text) in enumerate(OUTCOMES.items()):
        if name in rounds and rounds[name].any():
            means = np.add.reduceat(rounds[name], starts) / sizes
            parts.append((text, means, number))
    sums = {name: int(rounds[name].sum()) for name in ("asked", *OUTCOMES) if name in rounds}
    return parts, starts + (sizes + 1) / 2, sums


def draw(place, found):
    parts, x, _ = found
    drawing.stacked(place.subplots(), x, parts, "round", "clients a round")


def say(found):
    _, _, sums = found
    said = ("What became of the clients that were asked, by round: "
            f"{sums['merged']:,} of {sums['asked']:,} were merged")
    lost = [f"{sums[name]:,} {text}" for name, text in LOST.items() if sums.get(name)]
    if lost:
        return f"{said}, {', '.join(lost)}."
    return f"{said}. The others were still at work when the run ended."
