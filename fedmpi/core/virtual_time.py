"""Virtual seconds: how long clients take, who answers in time, and whose answer comes next.

    a client's seconds = latency + down_bytes / down + flops / speed + latency + up_bytes / up

Nothing here looks at the machine's own clock. C clients of a cohort, M clients at work at the same time.
"""

import math

import torch


def durations(fleet, clients, down_bytes, flops, up_bytes):
    """float64 (C,): seconds from when each of ``clients (C,)`` is asked until its answer is there. Bytes and FLOPs are
    (C,), finite and >= 0, which is not checked; at an infinite rate they take no time."""

    def takes(amount, rate):
        return torch.as_tensor(amount, dtype=torch.float64) / rate[clients]

    latency = fleet.latency[clients]
    return latency + takes(down_bytes, fleet.down) + takes(flops, fleet.speed) + latency + takes(up_bytes, fleet.up)


def dropped(fleet, clients, gen):
    """bool (C,): who of ``clients (C,)`` never answers. A client's fate does not depend on who else was asked."""
    return (torch.from_numpy(gen.random(len(fleet.dropout))) < fleet.dropout)[clients]


def in_time(arrival, count, deadline=math.inf):
    """bool (C,): the first ``count`` answers not later than the deadline, by ``arrival (C,)`` seconds, infinite for an
    answer that never comes; of answers at the same moment the earlier rows are first."""
    first = torch.zeros(len(arrival), dtype=torch.bool)
    first[torch.argsort(arrival, stable=True)[:count]] = True
    return first & arrival.isfinite() & (arrival <= deadline)


def round_s(arrival, counted, count, deadline=math.inf):
    """The round's seconds: until the last of the ``counted (C,)`` answers, or until the deadline where they are fewer
    than ``count``. Without a deadline always the last answer; 0 where nobody answers."""
    if int(counted.sum()) < count and math.isfinite(deadline):
        return float(deadline)
    return float(arrival[counted].max()) if bool(counted.any()) else 0.0


def earliest(state, lower):
    """The row, among M >= 1 clients at work, that arrives next, by (time, number).

    ``state`` has ``number (M,)`` int64, unique, and ``finish (M,)`` float64 seconds, NaN while unknown: there
    ``lower (M,)`` counts, a bound that ``finish`` will not be below. So a row of known finish is the next one for
    certain; a row of unknown finish says that the unknown ones must be found out before anyone arrives.
    """
    finish = state["finish"]
    time = torch.where(finish.isnan(), lower, finish)
    next_ones = torch.nonzero(time == time.min()).flatten()
    return int(next_ones[state["number"][next_ones].argmin()])
