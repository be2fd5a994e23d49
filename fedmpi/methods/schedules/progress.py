"""Shared by all schedules: a rise at the start, and the count of rounds, of local steps, or of both.

``over=run`` counts the local steps of all rounds: step h of round t is number ``(t - 1) H + h`` of
``rounds H``, if a client takes H steps a round.
"""

from typing import Literal

from fedmpi.core.parts import Schedule

Over = Literal["rounds", "steps", "run"]


def schedule(decay, over, warmup):
    """The ``Schedule`` of the factor ``decay(place, total)``.

    Place 0 is the first of ``total`` rounds or local steps after the warm-up. The ``warmup``
    first ones rise to it by equal amounts: 1 / (warmup + 1) is the first.
    """
    if warmup < 0:
        raise ValueError(f"warmup must be >= 0 {_counted(over)}, got {warmup}")

    def rate(now, step, steps):
        if over == "steps":
            return factor(step, steps)
        # Rounds count from 1.
        rounds_before = now.t - 1
        if over == "run":
            return factor(rounds_before * steps + step, now.rounds * steps)
        return factor(rounds_before, now.rounds)

    def factor(place, total):
        if place < warmup:
            return (place + 1) / (warmup + 1)
        # At least 1, since a warm-up may be longer than the run.
        rest = max(total - warmup, 1)
        return decay(place - warmup, rest)

    def planned(now):
        # Local steps know nothing of the run's length.
        if over == "steps":
            return None
        # The steps a round are not known here. A decay that differs at the end of the round may
        # differ in it.
        if over == "run":
            return decay(now.t, now.rounds)
        return rate(now, 0, 1)

    def notes(facts):
        last = {"rounds": facts.rounds, "steps": facts.steps, "run": facts.rounds * facts.steps}
        if warmup >= last[over]:
            yield (f"warmup={warmup} is not over by the end of the {last[over]} {_counted(over)}: "
                   "the learning rate never comes to what --lr says")

    return Schedule(rate, over != "rounds", planned, notes=notes)


def _counted(over):
    """The word for what is counted."""
    return "rounds" if over == "rounds" else "steps"


def final_share(final):
    """``final`` itself; ValueError where it is no share of the learning rate."""
    if not 0 <= final <= 1:
        raise ValueError(f"final must be in [0, 1], the share of --lr at the end, got {final}")
    return final
