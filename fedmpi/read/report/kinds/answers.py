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
    asked = rounds["asked"]
    merged = rounds["merged"]
    is_complete = asked == merged
    if is_complete.all():
        return None
    T = len(run.ends)
    rounds_a_bar = -(-T // BARS)
    starts = np.arange(0, T, rounds_a_bar)
    ends = np.append(starts, T)
    sizes = np.diff(ends)
    half = (sizes + 1) / 2
    # Bars stand in the middle of their rounds, which count from 1.
    x = starts + half
    columns = [name for name in ("asked", *OUTCOMES) if name in rounds]
    sums = {name: int(rounds[name].sum()) for name in columns}
    parts = []
    outcomes = OUTCOMES.items()
    for number, (name, text) in enumerate(outcomes):
        if sums.get(name):
            clients_of_bars = np.add.reduceat(rounds[name], starts)
            clients_a_round = clients_of_bars / sizes
            parts.append((text, clients_a_round, number))
    return parts, x, sums


def draw(place, numbers):
    parts, x, _ = numbers
    ax = place.subplots()
    drawing.stacked(ax, x, parts, "round", "clients a round")


def say(numbers):
    _, _, sums = numbers
    merged = sums["merged"]
    asked = sums["asked"]
    words = ("What became of the clients that were asked, by round: "
             f"{merged:,} of {asked:,} were merged")
    words_of = LOST.items()
    lost = [f"{sums[name]:,} {text}" for name, text in words_of if sums.get(name)]
    if lost:
        listed = ", ".join(lost)
        return f"{words}, {listed}."
    return f"{words}. The others were still at work when the run ended."
