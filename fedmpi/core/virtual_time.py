"""Virtual seconds: the clients' durations, the answers in time, and the next answer.

    a client's seconds = latency + down_bytes / down + flops / speed + latency + up_bytes / up

Nothing here looks at the machine's own clock. Sizes: C clients of a cohort, M clients at work at
the same time.
"""

import math

import torch


def durations(fleet, clients, down_bytes, flops, up_bytes):
    """float64 (C,): the seconds between asking each of ``clients (C,)`` and its answer.

    Bytes and FLOPs are (C,), finite and >= 0 (not checked); at an infinite rate they take no time.
    """

    def takes(amount, rate):
        amount = torch.as_tensor(amount, dtype=torch.float64)
        return amount / rate[clients]

    latency = fleet.latency[clients]
    receives = latency + takes(down_bytes, fleet.down)
    trains = takes(flops, fleet.speed)
    sends = takes(up_bytes, fleet.up)
    return receives + trains + latency + sends


def dropped(fleet, clients, gen):
    """bool (C,): the clients among ``clients (C,)`` that never answer."""
    # One draw for each of all N clients: a client's fate does not depend on its cohort.
    N = len(fleet.dropout)
    draws = torch.from_numpy(gen.random(N))
    gone = draws < fleet.dropout
    return gone[clients]


def in_time(arrival, count, deadline=math.inf):
    """bool (C,): the first ``count`` answers not later than the deadline.

    ``arrival (C,)`` are seconds, infinite for an answer that never comes. Of answers at the same
    moment the earlier rows are first.
    """
    order = torch.argsort(arrival, stable=True)
    first = torch.zeros(len(arrival), dtype=torch.bool)
    first_rows = order[:count]
    first[first_rows] = True
    # Infinite seconds are no answer, also without a deadline.
    punctual = arrival.isfinite() & (arrival <= deadline)
    return first & punctual


def round_s(arrival, counted, count, deadline=math.inf):
    """The round's seconds: until the last of the ``counted (C,)`` answers, or until the deadline.

    The server waits for the deadline, if there is one, while fewer than ``count`` answers are
    there. 0 if no answer comes.
    """
    num_counted = int(counted.sum())
    if num_counted < count and math.isfinite(deadline):
        return float(deadline)
    if num_counted == 0:
        return 0.0
    return float(arrival[counted].max())


def earliest(state, lower):
    """The row, among M >= 1 clients at work, of the next answer, by (time, number).

    ``state`` has ``number (M,)`` int64, unique, and ``finish (M,)`` float64 seconds, NaN while
    unknown. For an unknown finish its lower bound ``lower (M,)`` counts. So a row of known finish
    is certainly the next one. A row of unknown finish means: the unknown ones must be found out
    before any client arrives.
    """
    finish = state["finish"]
    time = torch.where(finish.isnan(), lower, finish)
    is_next = time == time.min()
    next_rows = torch.nonzero(is_next).flatten()
    numbers = state["number"][next_rows]
    return int(next_rows[numbers.argmin()])
