"""The profile of a run as text: a table with bars, and lines on the workers."""

from fedmpi.read.report.profile import AFTER, BESIDE, OWN, alone, profile
from fedmpi.read.report.text import human_seconds
from fedmpi.read.report.truth import options
from fedmpi.core.wide import aligned, wrapped

BAR = 24                      # characters


def profile_text(run, width=None):
    """The profile as a table with bars, and lines on their meaning and on the workers, at most
    ``width`` wide."""
    found = profile(run)
    if not found["rounds"]:
        return "no round has been played yet"
    round_s = found["wall_s"] / found["rounds"]
    head = f"{found['rounds']} rounds, {human_seconds(found['wall_s'])}, {round_s:.3g} s a round"
    if run.attrs.get("status") == "running":
        head += ", so far"
    remarks = list(notes(run, found))
    if width is not None:
        remarks = [part for line in remarks for part in wrapped(line, width, "  ")]
    return "\n".join([head, "", *_table(found, width), "", *remarks])


def notes(run, found):
    """Lines on the meaning of the phases, on the workers and on the slowest clients."""
    return [*_beside(run, found), *_after(found), *_workers(found), *_clients(run, found), *_missing(found)]


def _table(found, width):
    rows = [_row(name, phase) for name, phase in found["phases"].items()]
    rows.append(["all", f"{found['wall_s']:,.3f}", "100.0 %", "", "", "", ""])
    return aligned(["phase", "seconds", "share", "median ms", "largest ms", "in round", ""], rows, (0, 6), width)


def _row(name, phase):
    """A part of another phase is set in, work beside training has a star."""
    block = "█"
    if phase["kind"] != OWN:
        name, block = f"  {name}", "▒"
    if phase["kind"] == BESIDE:
        name += " *"
    spread = ["-"] * 3
    if "median_s" in phase:
        median, largest = 1000 * phase["median_s"], 1000 * phase["largest_s"]
        spread = [f"{median:,.1f}", f"{largest:,.1f}", str(phase["largest_round"])]
    bar = block * round(BAR * min(phase["share"], 1))
    return [name, f"{phase['seconds']:,.3f}", f"{100 * phase['share']:.1f} %", *spread, bar]


def _beside(run, found):
    """The meaning of the entries inside training."""
    if not any(phase["kind"] == BESIDE for phase in found["phases"].values()):
        return
    if alone(run):
        yield "wait: in one process, the training itself"
        yield ("* of the round before, after which training begins: part of train, but for the last round's, which is "
               "in none")
    else:
        yield "* of the round before, while clients train: part of train, but for the last round's, which is in none"


def _after(found):
    """The meaning of the entries outside of all rounds' seconds."""
    if any(phase["kind"] == AFTER for phase in found["phases"].values()):
        yield "own tests: clients' models on their own test parts, after a round and no part of its seconds"


def _workers(found):
    if found["client_s"] is None:
        return
    yield f"clients trained {found['client_s']:.3g} s{_load(found['workers'], found['busy'])}"
    seconds_of = found["ranks"]
    if len(seconds_of) > 1:
        low, high = min(seconds_of, key=seconds_of.get), max(seconds_of, key=seconds_of.get)
        yield f"most on rank {high}, {seconds_of[high]:.3g} s, least on rank {low}, {seconds_of[low]:.3g} s"


def _load(workers, busy):
    if workers is None:
        return "; how busy workers were is not told, as their number changed or is not recorded"
    if busy is None:
        return ""
    who = f"{workers} workers, which were"
    if workers == 1:
        who = "1 worker, which was"
    return f" on {who} busy with them for {100 * busy:.0f} % of train"


def _clients(run, found):
    if found["slowest"]:
        listed = ", ".join(map(_slow_client, found["slowest"]))
        yield f"slowest clients, by their median: {listed}"
    if not options(run).get("timing", "sync").startswith("sync"):
        yield "asynchronous: a round trains those who have started, for its own merge and for later ones"


def _slow_client(row):
    numbers = f"{row['median_s']:.3g} s"
    if row["samples"] is not None:
        numbers += f", {row['samples']:,} samples"
    return f"{row['client']} ({numbers})"


def _missing(found):
    if found["not_recorded"]:
        yield f"not recorded by the fedmpi that wrote this run: {', '.join(found['not_recorded'])}"
