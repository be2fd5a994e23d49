"""Shared by all schedules: a rise at the start, and the count of rounds or of local steps."""

from typing import Literal

from fedmpi.core.parts import Schedule

Over = Literal["rounds", "steps"]


def schedule(decay, over, warmup):
    """The ``Schedule`` of the factor ``decay(place, total)``.

    Place 0 is the first of ``total`` rounds or local steps after the warm-up. The ``warmup``
    first ones rise to it by equal amounts: 1 / (warmup + 1) is the first.
    """
    if warmup < 0:
        raise ValueError(f"warmup must be >= 0 {over}, got {warmup}")
    within = over == "steps"

    def rate(now, step, steps):
        if within:
            return factor(step, steps)
        # Rounds count from 1.
        return factor(now.t - 1, now.rounds)

    def factor(place, total):
        if place < warmup:
            return (place + 1) / (warmup + 1)
        # At least 1, since a warm-up may be longer than the run.
        rest = max(total - warmup, 1)
        return decay(place - warmup, rest)

    def planned(now):
        # Local steps know nothing of the run's length.
        if within:
            return None
        return rate(now, 0, 1)

    def notes(facts):
        last = facts.steps if within else facts.rounds
        if warmup >= last:
            yield (f"warmup={warmup} is not over by the end of the {last} {over}: the learning "
                   "rate never comes to what --lr says")

    return Schedule(rate, within, planned, notes=notes)


def final_share(final):
    """``final`` itself; ValueError where it is no share of the learning rate."""
    if not 0 <= final <= 1:
        raise ValueError(f"final must be in [0, 1], the share of --lr at the end, got {final}")
    return final
