"""What is told and recorded of the clients and their data."""

import numpy as np

from fedmpi.build import kinds
from fedmpi.build.labels import labels
from fedmpi.methods.datasets.dataset import inputs_text, targets_text


def data_lines(options, data):
    """Lines about data of the user's own: how they were read, and what reaches the model."""
    dataset = data.dataset
    if not dataset.told and options["dataset"].partition(":")[0] != "hdf5":
        return []
    targets = [] if dataset.classes else [f"targets: {targets_text(dataset)}"]
    return [*dataset.told, f"inputs: {inputs_text(dataset)}", *targets]


def dealt(options, data):
    """How the data are dealt out and what is wrong with them, for people: ``partition iid, noise none (no label is
    changed)``."""
    low, high = 100 * data.noise.min(), 100 * data.noise.max()
    what = "label" if data.dataset.classes else "target"
    wrong = f"no {what} is changed"
    if high:
        wrong = f"{low:.0f} to {high:.0f} % of a client's labels are wrong"
    words = [f"partition {options['partition']}", f"noise {options['noise']}"]
    if options["features"] != "none":
        words.append(f"features {options['features']}")
    words += [f"fault {spec}" for spec in options["fault"]]
    return f"{', '.join(words)} ({wrong})"


def population(options, data):
    """What the run file records about every client, as ``{name: (array, unit, description, dimension of a second
    axis)}``: all that was injected."""
    true = data.dataset.y_train[data.indices]
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
        recorded["labels"] = (_histogram(data, data.labels), "1",
                              "samples by label as the client sees them, noise included", "class")
        recorded["true_labels"] = (_histogram(data, true), "1", "samples by true label", "class")
    if kinds.several(options):
        names = np.array([name.encode() for name in labels(kinds.specs(options))])
        trained = kinds.of_clients(options, len(data.sizes)).numpy()
        recorded["network"] = names[trained], "", "the network that the client trains"
    if data.client_names:
        texts = np.array([name.encode() for name in data.client_names])
        recorded["name"] = texts, "", "what the data set calls the client"
    if data.held_out is not None:
        own = "samples of its own test part, see --client-test"
        recorded["test_samples"] = data.held_out.sizes, "1", own
    for number, (spec, who) in enumerate(zip(options["fault"], data.faults)):
        recorded[f"fault_{number}"] = who, "1", f"whether the client is faulty by {spec}"
    return recorded


def _histogram(data, labels):
    """(N, classes) int64: how many of each client's samples have which label."""
    N = len(data.sizes)
    owner = np.repeat(np.arange(N), data.sizes)
    counts = np.zeros((N, data.dataset.classes), np.int64)
    np.add.at(counts, (owner, labels), 1)
    return counts
