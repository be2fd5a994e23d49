"""Where the time of the rounds went, by phase."""

from fedmpi.core.words import plural
from fedmpi.read.report import draw as drawing
from fedmpi.read.report.profile import OWN, profile
from fedmpi.read.report.text import human_seconds

# Phases that the caption names.
NAMED = 3


def find(run):
    """The ``profile`` of a run; None if it has recorded no times."""
    times = profile(run)
    if times["phases"] and times["wall_s"]:
        return times
    return None


def draw(place, times):
    bars = []
    for name, phase in times["phases"].items():
        is_part = phase["kind"] != OWN
        if is_part:
            name = f"· {name}"
        percent = 100 * phase["share"]
        seconds = phase["seconds"]
        duration = human_seconds(seconds)
        text = f"{percent:.0f} %, {duration}"
        bars.append((name, seconds, text, is_part))
    ax = place.subplots()
    drawing.bars(ax, bars, "seconds of all rounds")


def size(times):
    """Height over width: a bar a phase."""
    return 0.2 + 0.065 * len(times["phases"])


def say(times):
    wall = human_seconds(times["wall_s"])
    lighter = "Lighter bars are parts of train, or go on beside it"
    if "own tests" in times["phases"]:
        lighter += ", or come after a round"
    return f"Where {wall} of {plural(times['rounds'], 'round')} went: {_largest(times)}. {lighter}."


def _largest(times):
    shares = []
    for name, phase in times["phases"].items():
        if phase["kind"] == OWN:
            shares.append((phase["share"], name))
    by_share = sorted(shares, reverse=True)
    largest = by_share[:NAMED]
    return ", ".join(f"{name} {100 * share:.0f} %" for share, name in largest)
