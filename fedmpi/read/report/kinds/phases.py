"""Where the time of the rounds went, by phase."""

from fedmpi.read.report import draw as drawing
from fedmpi.read.report.profile import OWN, profile
from fedmpi.read.report.text import human_seconds

NAMED = 3                         # phases that the caption names


def find(run):
    """The ``profile`` of a run; None if it has recorded no times."""
    found = profile(run)
    if found["phases"] and found["wall_s"]:
        return found
    return None


def draw(place, found):
    bars = []
    for name, phase in found["phases"].items():
        inside = phase["kind"] != OWN
        if inside:
            name = f"· {name}"
        text = f"{100 * phase['share']:.0f} %, {human_seconds(phase['seconds'])}"
        bars.append((name, phase["seconds"], text, inside))
    drawing.bars(place.subplots(), bars, "seconds of all rounds")


def size(found):
    """Height over width: a bar a phase."""
    return 0.2 + 0.065 * len(found["phases"])


def say(found):
    after = "."
    if "own tests" in found["phases"]:
        after = ", or come after a round."
    return (f"Where {human_seconds(found['wall_s'])} of {found['rounds']} rounds went: {_largest(found)}. "
            f"Lighter bars are parts of train, or go on beside it{after}")


def _largest(found):
    shares = [(phase["share"], name) for name, phase in found["phases"].items() if phase["kind"] == OWN]
    largest = sorted(shares, reverse=True)[:NAMED]
    return ", ".join(f"{name} {100 * share:.0f} %" for share, name in largest)
