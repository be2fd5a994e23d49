"""The profile of a run as text: a table with bars, and lines on the workers."""

from fedmpi.read.report.profile import AFTER, BESIDE, OWN, alone, profile
from fedmpi.read.report.text import human_seconds
from fedmpi.read.report.truth import options
from fedmpi.core.wide import aligned, wrapped
from fedmpi.core.words import plural

# The characters of the longest bar.
BAR = 24


def profile_text(run, width=None):
    """The profile as a table with bars, and lines on their meaning and on the workers, at most
    ``width`` wide."""
    times = profile(run)
    if not times["rounds"]:
        return "no round has been played yet"
    remarks = notes(run, times)
    if width is not None:
        remarks = [part for line in remarks for part in wrapped(line, width, "  ")]
    lines = _table(times, width)
    head = _head(run, times)
    return "\n".join([head, "", *lines, "", *remarks])


def _head(run, times):
    num_rounds = times["rounds"]
    wall_s = times["wall_s"]
    round_s = wall_s / num_rounds
    line = f"{plural(num_rounds, 'round')}, {human_seconds(wall_s)}, {round_s:.3g} s a round"
    if run.attrs.get("status") == "running":
        line += ", so far"
    return line


def notes(run, times):
    """Lines on the meaning of the phases, on the workers and on the slowest clients.

    ``times``: the ``profile`` of the run."""
    return [
        *_beside(run, times),
        *_after(times),
        *_workers(times),
        *_clients(run, times),
        *_missing(times),
    ]


def _table(times, width):
    rows = [_row(name, phase) for name, phase in times["phases"].items()]
    total = ["all", f"{times['wall_s']:,.3f}", "100.0 %", "", "", "", ""]
    rows.append(total)
    heads = ["phase", "seconds", "share", "median ms", "largest ms", "in round", ""]
    last = len(heads) - 1
    # Names and bars stand to the left.
    left = (0, last)
    return aligned(heads, rows, left, width)


def _row(name, phase):
    """A part of another phase is set in, work beside training has a star."""
    block = "█"
    if phase["kind"] != OWN:
        name = f"  {name}"
        block = "▒"
    if phase["kind"] == BESIDE:
        name += " *"
    spread = ["-", "-", "-"]
    if "median_s" in phase:
        median_ms = 1000 * phase["median_s"]
        largest_ms = 1000 * phase["largest_s"]
        spread = [f"{median_ms:,.1f}", f"{largest_ms:,.1f}", str(phase["largest_round"])]
    seconds = phase["seconds"]
    share = phase["share"]
    within_round = min(share, 1)
    # Work beside training can take longer than the rounds.
    bar = block * round(BAR * within_round)
    percent = 100 * share
    return [name, f"{seconds:,.3f}", f"{percent:.1f} %", *spread, bar]


def _kinds(times):
    phases = times["phases"].values()
    return {phase["kind"] for phase in phases}


def _beside(run, times):
    """The meaning of the entries inside training."""
    if BESIDE not in _kinds(times):
        return
    when = "while clients train"
    if alone(run):
        yield "wait: in one process, the training itself"
        when = "after which training begins"
    yield (f"* of the round before, {when}: part of train, but for the last round's, which is in "
           "none")


def _after(times):
    """The meaning of the entries outside of all rounds' seconds."""
    if AFTER in _kinds(times):
        yield ("own tests: clients' models on their own test parts, after a round and no part of "
               "its seconds")


def _workers(times):
    if times["client_s"] is None:
        return
    load = _load(times["workers"], times["busy"])
    yield f"clients trained {times['client_s']:.3g} s{load}"
    seconds_of = times["ranks"]
    if len(seconds_of) > 1:
        most = max(seconds_of, key=seconds_of.get)
        least = min(seconds_of, key=seconds_of.get)
        most_s = seconds_of[most]
        least_s = seconds_of[least]
        yield (f"most on rank {most}, {most_s:.3g} s, least on rank {least}, "
               f"{least_s:.3g} s")


def _load(workers, busy):
    if workers is None:
        return "; how busy workers were is not told, as their number changed or is not recorded"
    if busy is None:
        return ""
    subject = f"{workers} workers, which were"
    if workers == 1:
        subject = "1 worker, which was"
    percent = 100 * busy
    return f" on {subject} busy with them for {percent:.0f} % of train"


def _clients(run, times):
    if times["slowest"]:
        listed = ", ".join(map(_slow_client, times["slowest"]))
        yield f"slowest clients, by their median: {listed}"
    if not options(run).get("timing", "sync").startswith("sync"):
        yield ("asynchronous: a round trains those who have started, for its own merge and for "
               "later ones")


def _slow_client(row):
    median_s = row["median_s"]
    numbers = f"{median_s:.3g} s"
    if row["samples"] is not None:
        numbers += f", {plural(row['samples'], 'sample')}"
    return f"{row['client']} ({numbers})"


def _missing(times):
    if times["not_recorded"]:
        listed = ", ".join(times["not_recorded"])
        yield f"not recorded by the fedmpi that wrote this run: {listed}"
