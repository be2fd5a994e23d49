"""The classes and samples of each client, and its faults."""

from fedmpi.core.words import plural
from fedmpi.read.report.partition import clients_of
from fedmpi.read.report.truth import options

# At most so many classes are named in the caption.
NAMED = 10


def find(run):
    """The columns of ``clients_of`` and ``class_names``; None of a run without a recorded
    partition."""
    if not {"labels", "samples", "noise"} <= set(run.population):
        return None
    inputs = run.attrs.get("inputs", {})
    names = inputs.get("names", [])
    faults = options(run).get("fault") or ()
    numbers = clients_of(run.population, faults)
    return numbers | {"class_names": names}


def draw(place, numbers):
    # matplotlib, only for drawing.
    from fedmpi.read.report.partition_figure import draw_partition
    draw_partition(place, numbers)


def size(numbers):
    """Height over width: higher with more clients, within limits."""
    num_clients = len(numbers["clients"]["samples"])
    by_clients = 0.35 + 0.032 * num_clients
    not_flat = max(0.55, by_clients)
    return min(not_flat, 1.5)


def say(numbers):
    clients = numbers["clients"]
    N, K = clients["labels"].shape
    classes = f"{K} classes"
    if 0 < len(numbers["class_names"]) <= NAMED:
        listed = ", ".join(numbers["class_names"])
        classes += f" ({listed})"
    samples = clients["samples"]
    fewest = samples.min()
    most = samples.max()
    sizes = f"{fewest:,} to {most:,} samples of {classes} each"
    held = clients["classes_held"]
    spread = f"between {held.min()} and {held.max()} classes a client"
    return (f"What each of {plural(N, 'client')} holds: left, the share of each class, as the "
            "client sees "
            f"it, the fuller the more; right, its samples. {sizes}{_noise(clients['noise'])}; "
            f"{spread}{_faults(clients['faulty'])}.")


def _noise(rates):
    if rates.max() <= 0:
        return ""
    low = 100 * rates.min()
    high = 100 * rates.max()
    return f", {low:.0f} to {high:.0f} % of labels wrong"


def _faults(faulty):
    """``faulty`` (N, F) bool, a column a fault."""
    if not faulty.size:
        return ""
    is_faulty = faulty.any(axis=1)
    num_bad = int(is_faulty.sum())
    if not num_bad:
        return ""
    return f"; {plural(num_bad, 'client')} with faults"
