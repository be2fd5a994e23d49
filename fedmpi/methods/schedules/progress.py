"""Shared by all schedules: a rise at the start, and the count of rounds or of local steps.

The count is of rounds; of the local steps of each round (``over=steps``); or of the steps of the
whole run (``over=run``), in which step h of H in round t is number (t - 1) H + h of T H.
"""

from typing import Literal

from fedmpi.core.parts import Schedule

Over = Literal["rounds", "steps", "run"]


def schedule(decay, over, warmup):
    """The ``Schedule`` of the factor ``decay(place, total)``.

    Place 0 is the first of ``total`` rounds or local steps after the warm-up. The ``warmup``
    first ones rise to it by equal amounts: 1 / (warmup + 1) is the first.
    """
    units = "rounds" if over == "rounds" else "steps"
    if warmup < 0:
        raise ValueError(f"warmup must be >= 0 {units}, got {warmup}")

    def rate(now, step, steps):
        # Rounds count from 1.
        if over == "rounds":
            return factor(now.t - 1, now.rounds)
        if over == "steps":
            return factor(step, steps)
        return factor((now.t - 1) * steps + step, now.rounds * steps)

    def factor(place, total):
        if place < warmup:
            return (place + 1) / (warmup + 1)
        # At least 1, since a warm-up may be longer than the run.
        rest = max(total - warmup, 1)
        return decay(place - warmup, rest)

    def planned(now):
        # The steps of one round know nothing of the run's length.
        if over == "steps":
            return None
        if over == "run":
            # The rate after the round's last step, as if a round were one step.
            return decay(now.t, now.rounds)
        return rate(now, 0, 1)

    def notes(facts):
        last = {"rounds": facts.rounds, "steps": facts.steps, "run": facts.rounds * facts.steps}
        if warmup >= last[over]:
            yield (f"warmup={warmup} is not over by the end of the {last[over]} {units}: the "
                   "learning rate never comes to what --lr says")

    return Schedule(rate, over != "rounds", planned, notes=notes)


def final_share(final):
    """``final`` itself; ValueError where it is no share of the learning rate."""
    if not 0 <= final <= 1:
        raise ValueError(f"final must be in [0, 1], the share of --lr at the end, got {final}")
    return final
