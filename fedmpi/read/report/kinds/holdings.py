"""The classes and samples of each client, and its faults."""

from fedmpi.read.report.partition import clients_of
from fedmpi.read.report.truth import options

NAMED = 10                        # at most so many classes are named in the caption


def find(run):
    """The columns of ``clients_of`` and ``class_names``; None of a run that has not recorded its
    partition."""
    if not {"labels", "samples", "noise"} <= set(run.population):
        return None
    names = run.attrs.get("inputs", {}).get("names", [])
    faults = options(run).get("fault") or ()
    return clients_of(run.population, faults) | {"class_names": names}


def draw(place, found):
    from fedmpi.read.report.partition_figure import draw_partition
    draw_partition(place, found)


def size(found):
    """Height over width: higher with more clients, within limits."""
    by_clients = 0.35 + 0.032 * len(found["clients"]["samples"])
    return min(max(0.55, by_clients), 1.5)


def say(found):
    clients = found["clients"]
    samples, held = clients["samples"], clients["classes_held"]
    N, K = clients["labels"].shape
    classes = f"{K} classes"
    if 0 < len(found["class_names"]) <= NAMED:
        classes += f" ({', '.join(found['class_names'])})"
    return (f"What each of {N} clients holds: left, the share of each class, as the client sees it, the fuller the "
            f"more; right, its samples. {samples.min():,} to {samples.max():,} samples of {classes} each"
            f"{_noise(clients['noise'])}; between {held.min()} and {held.max()} classes a client"
            f"{_faults(clients['faulty'])}.")


def _noise(wrong):
    if wrong.max() <= 0:
        return ""
    return f", {100 * wrong.min():.0f} to {100 * wrong.max():.0f} % of labels wrong"


def _faults(faulty):
    """``faulty`` (N, F) bool, a column a fault."""
    if not faulty.size:
        return ""
    num_bad = int(faulty.any(axis=1).sum())
    if not num_bad:
        return ""
    return f"; {num_bad} clients with faults"
