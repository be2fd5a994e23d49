"""Texts and records about the clients and their data."""

import numpy as np

from fedmpi.build import kinds
from fedmpi.build.labels import labels
from fedmpi.methods.datasets.dataset import inputs_text, targets_text


def data_lines(options, data):
    """Lines about a user's own data set: how it was read, and the model's inputs and targets."""
    dataset = data.dataset
    name, _, _ = options["dataset"].partition(":")
    if not dataset.remarks and name != "hdf5":
        return []
    lines = [*dataset.remarks, f"inputs: {inputs_text(dataset)}"]
    if not dataset.classes:
        lines.append(f"targets: {targets_text(dataset)}")
    return lines


def dealt(options, data):
    """The partition, noise, skew and faults: ``partition iid, noise none (no label is
    changed)``."""
    partition, noise, features = options["partition"], options["noise"], options["features"]
    words = [f"partition {partition}", f"noise {noise}"]
    if features != "none":
        words.append(f"features {features}")
    for spec in options["fault"]:
        words.append(f"fault {spec}")
    text = ", ".join(words)
    return f"{text} ({_wrong_text(data)})"


def _wrong_text(data):
    """How many of the labels are wrong."""
    low, high = data.noise.min(), data.noise.max()
    if high:
        return f"{100 * low:.0f} to {100 * high:.0f} % of a client's labels are wrong"
    noun = "label" if data.dataset.classes else "target"
    return f"no {noun} is changed"


def population(options, data):
    """The run file's record of the clients: ``{name: (array, unit, description, second axis)}``.

    It holds the truth about each client, such as its noise and faults.
    """
    recorded = {
        "samples": (data.sizes, "1", "training samples"),
        "noise": (data.noise, "1", "fraction of labels that are wrong, as injected"),
        "features": (data.features, "1",
                     f"level of feature skew, see fedmpi list features {options['features']}"),
        "quality": (data.quality, "1",
                    "1 - noise, at most what its faults leave: what a contribution ought to find"),
        "duplicate_of": (data.source, "1", "the client whose samples it duplicates, -1 for none"),
    }
    if data.dataset.classes:
        recorded |= _label_counts(data)
    if kinds.several(options):
        names = _bytes(labels(kinds.specs(options)))
        trained = kinds.of_clients(options, len(data.sizes)).numpy()
        recorded["network"] = names[trained], "", "the network that the client trains"
    if data.client_names:
        recorded["name"] = _bytes(data.client_names), "", "what the data set calls the client"
    if data.held_out is not None:
        own = "samples of its own test part, see --client-test"
        recorded["test_samples"] = data.held_out.sizes, "1", own
    faults = zip(options["fault"], data.faults)
    for number, (spec, faulty) in enumerate(faults):
        recorded[f"fault_{number}"] = faulty, "1", f"whether the client is faulty by {spec}"
    return recorded


def _bytes(texts):
    """Texts as an array of bytes, for HDF5."""
    return np.array([text.encode() for text in texts])


def _label_counts(data):
    """The entries of ``population`` about each client's labels."""
    seen = _histogram(data, data.labels)
    true = _histogram(data, data.dataset.y_train[data.indices])
    about_seen = "samples by label as the client sees them, noise included"
    return {
        "labels": (seen, "1", about_seen, "class"),
        "true_labels": (true, "1", "samples by true label", "class"),
    }


def _histogram(data, labels):
    """(N, classes) int64: the number of each client's samples with each label."""
    N = len(data.sizes)
    owner = np.repeat(np.arange(N), data.sizes)
    counts = np.zeros((N, data.dataset.classes), np.int64)
    np.add.at(counts, (owner, labels), 1)
    return counts
