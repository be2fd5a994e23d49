"""The profile of a run as text: a table with bars, and lines on the workers."""

from fedmpi.read.report.profile import AFTER, BESIDE, OWN, alone, profile
from fedmpi.read.report.text import human_seconds
from fedmpi.read.report.truth import options
from fedmpi.core.wide import aligned, wrapped

BAR = 24                      # characters


def profile_text(run, width=None):
    """The profile as a table with bars, and lines on what they mean and on the workers, at most ``width`` wide."""
    found = profile(run)
    if not found["rounds"]:
        return "no round has been played yet"
    each = found["wall_s"] / found["rounds"]
    head = (f"{found['rounds']} rounds, {human_seconds(found['wall_s'])}, {each:.3g} s a round"
            + ", so far" * (run.attrs.get("status") == "running"))
    told = list(notes(run, found))
    if width is not None:
        told = [part for line in told for part in wrapped(line, width, "  ")]
    return "\n".join([head, "", *_table(found, width), "", *told])


def notes(run, found):
    """Lines on what the phases mean, on the workers and on the slowest clients."""
    return [*_beside(run, found), *_after(found), *_workers(found), *_clients(run, found), *_missing(found)]


def _table(found, width):
    rows = []
    for name, each in found["phases"].items():
        inside = each["kind"] != OWN
        label = "  " * inside + name + " *" * (each["kind"] == BESIDE)
        spread = [f"{1000 * each['median_s']:,.1f}", f"{1000 * each['largest_s']:,.1f}", str(each["largest_round"])] \
            if "median_s" in each else ["-"] * 3
        bar = ("▒" if inside else "█") * round(BAR * min(each["share"], 1))
        rows.append([label, f"{each['seconds']:,.3f}", f"{100 * each['share']:.1f} %", *spread, bar])
    rows.append(["all", f"{found['wall_s']:,.3f}", "100.0 %", "", "", "", ""])
    return aligned(["phase", "seconds", "share", "median ms", "largest ms", "in round", ""], rows, (0, 6), width)


def _beside(run, found):
    """What the entries inside training are."""
    if not any(each["kind"] == BESIDE for each in found["phases"].values()):
        return
    if alone(run):
        yield "wait: in one process, the training itself"
        yield ("* of the round before, after which training begins: part of train, but for the last round's, which is "
               "in none")
    else:
        yield "* of the round before, while clients train: part of train, but for the last round's, which is in none"


def _after(found):
    """What the entries are that no round's seconds hold."""
    if any(each["kind"] == AFTER for each in found["phases"].values()):
        yield "own tests: clients' models on their own test parts, after a round and no part of its seconds"


def _workers(found):
    if found["client_s"] is None:
        return
    told, several = f"clients trained {found['client_s']:.3g} s", found["workers"] != 1
    if found["busy"] is not None:
        told += (f" on {found['workers']} worker{'s' * several}, which {'were' if several else 'was'} busy with them "
                 f"for {100 * found['busy']:.0f} % of train")
    elif found["workers"] is None:
        told += "; how busy workers were is not told, as their number changed or is not recorded"
    yield told
    if len(found["ranks"]) > 1:
        low, high = (choose(found["ranks"], key=found["ranks"].get) for choose in (min, max))
        yield f"most on rank {high}, {found['ranks'][high]:.3g} s, least on rank {low}, {found['ranks'][low]:.3g} s"


def _clients(run, found):
    if found["slowest"]:
        yield "slowest clients, by their median: " + ", ".join(
            f"{each['client']} ({each['median_s']:.3g} s" + ("" if each["samples"] is None else
                                                           f", {each['samples']:,} samples") + ")"
            for each in found["slowest"])
    if not options(run).get("aggregation", "sync").startswith("sync"):
        yield "asynchronous: a round trains those who have started, for its own merge and for later ones"


def _missing(found):
    if found["not_recorded"]:
        yield f"not recorded by the fedmpi that wrote this run: {', '.join(found['not_recorded'])}"
