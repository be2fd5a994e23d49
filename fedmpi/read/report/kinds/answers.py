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
    if "asked" not in rounds or "merged" not in rounds:
        return None
    is_complete = rounds["asked"] == rounds["merged"]
    if is_complete.all():
        return None
    T = len(run.ends)
    rounds_a_bar = -(-T // BARS)
    starts = np.arange(0, T, rounds_a_bar)
    sizes = np.diff(np.append(starts, T))
    # Bars stand in the middle of their rounds, which count from 1.
    x = starts + (sizes + 1) / 2
    columns = [name for name in ("asked", *OUTCOMES) if name in rounds]
    sums = {name: int(rounds[name].sum()) for name in columns}
    parts = []
    for number, (name, text) in enumerate(OUTCOMES.items()):
        if sums.get(name):
            clients_of_bars = np.add.reduceat(rounds[name], starts)
            parts.append((text, clients_of_bars / sizes, number))
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
