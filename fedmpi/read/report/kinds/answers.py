"""Asked clients by round: merged, late, lost."""

import numpy as np

from fedmpi.read.report import draw as drawing
from fedmpi.read.report.text import LOST

OUTCOMES = {"merged": "merged"} | LOST
# The most bars; of a long run each stands for several rounds.
BARS = 60


def find(run):
    """``(parts, x, sums)``; None if all asked clients were merged.

    ``parts``: [(outcome, (n,) clients a round, its look)] of n bars at ``x (n,)``. ``sums``:
    {column: clients of all rounds}."""
    rounds = run.rounds
    if not {"asked", "merged"} <= set(rounds):
        return None
    if (rounds["asked"] == rounds["merged"]).all():
        return None
    T = len(run.ends)
    rounds_a_bar = -(-T // BARS)
    starts = np.arange(0, T, rounds_a_bar)
    sizes = np.diff(np.append(starts, T))
    # Bars stand in the middle of their rounds, which count from 1.
    x = starts + (sizes + 1) / 2
    parts = []
    for number, (name, text) in enumerate(OUTCOMES.items()):
        if name in rounds and rounds[name].any():
            means = np.add.reduceat(rounds[name], starts) / sizes
            parts.append((text, means, number))
    columns = [name for name in ("asked", *OUTCOMES) if name in rounds]
    sums = {name: int(rounds[name].sum()) for name in columns}
    return parts, x, sums


def draw(place, numbers):
    parts, x, _ = numbers
    drawing.stacked(place.subplots(), x, parts, "round", "clients a round")


def say(numbers):
    _, _, sums = numbers
    words = ("What became of the clients that were asked, by round: "
             f"{sums['merged']:,} of {sums['asked']:,} were merged")
    lost = [f"{sums[name]:,} {text}" for name, text in LOST.items() if sums.get(name)]
    if lost:
        return f"{words}, {', '.join(lost)}."
    return f"{words}. The others were still at work when the run ended."
