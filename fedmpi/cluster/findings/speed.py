"""Findings about speed between ranks.

Times and rates inside one node are the measure; between nodes the network may be slower, and a
finding says so.
"""

import statistics

from fedmpi.cluster.findings.finding import GB, Finding, good, named
from fedmpi.cluster.findings.placement import num_cores
from fedmpi.core.words import plural
from fedmpi.transport import place

# Share of a core that a waiting rank may burn.
WAITING = 0.05
# There and back, 8 bytes.
ROUND_TRIP_S = 0.02
# Bytes a second between two ranks, long messages.
RATE = 100e6
# Of the rate that MPI alone reaches, long messages, ranks on cores of their own.
AGAINST_BARE = 0.25
# By which nodes may differ: times in logs and of files.
CLOCK_S = 1.0
MIB = 2 ** 20


def speed(ranks, probe):
    """Findings about the ``probe`` between ranks; none in one process, where it is None."""
    if probe is None:
        return
    pairs = probe["pairs"]
    yield _latency(pairs)
    have_cores = _have_cores(ranks)
    for size in _sizes(pairs):
        yield _rate(pairs, size, have_cores)
    yield _broadcast(probe["broadcast"], len(ranks) - 1)
    yield _waiting(probe["waiting"])
    yield from _clocks(ranks, pairs)


def _have_cores(ranks):
    """Whether each rank can have a core of its own."""
    for numbers in place.by_node(ranks).values():
        if num_cores(ranks, numbers) < len(numbers):
            return False
    return True


def _sizes(pairs):
    """The bytes of the long messages, in order."""
    sizes = set()
    for pair in pairs.values():
        # Facts that went through JSON have texts as keys.
        sizes.update(map(int, pair["rates"]))
    return sorted(sizes)


def _latency(pairs):
    round_trip_s = {rank: pair["round_trip_s"] for rank, pair in pairs.items()}
    worst = max(round_trip_s, key=round_trip_s.get)
    longest = round_trip_s[worst]
    median = statistics.median(round_trip_s.values())
    bare = statistics.median(pair["bare_round_trip_s"] for pair in pairs.values())
    ours = f"median {median * 1e6:.0f} us, worst {longest * 1e6:.0f} us (rank {worst})"
    alone = f"MPI alone {bare * 1e6:.0f} us, {median / bare:.2g} times faster, and never asleep"
    line = f"8 bytes to a worker and back: {ours}; {alone}"
    if longest < ROUND_TRIP_S:
        return good("latency", line)
    return Finding(
        "warning", "latency", line,
        expected=f"at most {ROUND_TRIP_S * 1e3:.0f} ms",
        way_out="fewer ranks a core, or a faster network: see UCX_TLS, FI_PROVIDER")


def _broadcast(measured, num_workers):
    seconds = measured["seconds"]
    bare = measured["bare_seconds"]
    times = seconds / bare
    size = measured["bytes"] / MIB
    to_all = f"{size:.0f} MiB to {plural(num_workers, 'worker')}"
    ours = f"{seconds * 1e3:.1f} ms"
    alone = f"MPI alone {bare * 1e3:.1f} ms"
    return good("broadcast", f"{to_all}: {ours}; {alone}, {times:.2g} times")


def _waiting(share_of):
    """About the share of a core burnt by each waiting rank."""
    busy = []
    for rank, share in share_of.items():
        if share > WAITING:
            busy.append(rank)
    most = max(share_of.values())
    line = f"a rank that waits burns {most:.1%} of a core, at most"
    if not busy:
        return good("waiting", line)
    return Finding(
        "warning", "waiting", f"{line} ({named(busy)})",
        expected=f"at most {WAITING:.0%}",
        way_out="another program may burn it; "
                "is a thread of MPI's own spinning (UCX, MPICH_ASYNC_PROGRESS)?")


def _rate(pairs, size, have_cores):
    """About messages of ``size`` bytes.

    ``have_cores``: ranks have cores of their own. Else bare MPI, which never sleeps, is no measure.
    """
    rates, shares = {}, []
    for rank, pair in pairs.items():
        rate = _at(pair["rates"], size)
        if rate is not None:
            rates[rank] = rate
            shares.append(rate / _at(pair["bare_rates"], size))
    slowest = min(rates, key=rates.get)
    least = rates[slowest]
    share = statistics.median(shares)
    median = statistics.median(rates.values())
    measured = f"median {median / GB:.2g} GB/s, least {least / GB:.2g} GB/s (rank {slowest})"
    between = f"{size >> 20} MiB between rank 0 and a worker"
    line = f"{between}: {measured}; {share:.2g} of MPI alone"
    if least < RATE:
        return Finding(
            "warning", "bandwidth", line,
            expected=f"{RATE / GB:g} GB/s",
            way_out="is this the fast network? see UCX_NET_DEVICES, FI_PROVIDER")
    if have_cores and share < AGAINST_BARE:
        return Finding(
            "note", "bandwidth", line,
            expected=f"{AGAINST_BARE:g} of MPI alone",
            way_out="a busy node shows less; repeat it on a quiet one")
    return good("bandwidth", line)


def _at(rates, size):
    """The rate at ``size``, None if it was not measured; JSON makes texts of the keys."""
    if size in rates:
        return rates[size]
    return rates.get(str(size))


def _clocks(ranks, pairs):
    offset_s = {rank: pair["clock_s"] for rank, pair in pairs.items()}
    far = {}
    for rank, pair in pairs.items():
        # A slow network cannot tell its own delay from a clock that is off.
        tolerance_s = CLOCK_S + pair["clock_error_s"]
        if abs(offset_s[rank]) > tolerance_s:
            far[rank] = abs(offset_s[rank])
    if not far:
        largest = max(map(abs, offset_s.values()))
        yield good("clocks", f"within {largest:.1g} s of rank 0's")
        return
    rank = max(far, key=far.get)
    host = ranks[rank]["host"]
    yield Finding(
        "warning", "clocks", f"{host} is {offset_s[rank]:+.1f} s off rank 0's clock",
        expected=f"{CLOCK_S:g} s at most",
        way_out="tell the administrators: chrony or ntp does not run there")
