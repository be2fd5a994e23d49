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
    names = run.attrs.get("inputs", {}).get("names", [])
    faults = options(run).get("fault") or ()
    return clients_of(run.population, faults) | {"class_names": names}


def draw(place, numbers):
    from fedmpi.read.report.partition_figure import draw_partition
    draw_partition(place, numbers)


def size(numbers):
    """Height over width: higher with more clients, within limits."""
    by_clients = 0.35 + 0.032 * len(numbers["clients"]["samples"])
    return min(max(0.55, by_clients), 1.5)


def say(numbers):
    clients = numbers["clients"]
    N, K = clients["labels"].shape
    classes = f"{K} classes"
    if 0 < len(numbers["class_names"]) <= NAMED:
        classes += f" ({', '.join(numbers['class_names'])})"
    samples = clients["samples"]
    sizes = f"{samples.min():,} to {samples.max():,} samples of {classes} each"
    held = clients["classes_held"]
    spread = f"between {held.min()} and {held.max()} classes a client"
    return (f"What each of {plural(N, 'client')} holds: left, the share of each class, as the "
            "client sees "
            f"it, the fuller the more; right, its samples. {sizes}{_noise(clients['noise'])}; "
            f"{spread}{_faults(clients['faulty'])}.")


def _noise(rates):
    if rates.max() <= 0:
        return ""
    low, high = 100 * rates.min(), 100 * rates.max()
    return f", {low:.0f} to {high:.0f} % of labels wrong"


def _faults(faulty):
    """``faulty`` (N, F) bool, a column a fault."""
    if not faulty.size:
        return ""
    num_bad = int(faulty.any(axis=1).sum())
    if not num_bad:
        return ""
    return f"; {plural(num_bad, 'client')} with faults"
