"""The numbers of a partition: each client's samples and labels, the skew of labels; noisy and
faulty clients, and copies."""

import numpy as np

from fedmpi.read.report.statistics import entropy_bits, proportions, total_variation

# The options that say what was dealt out, and how.
NAMED = ("dataset", "partition", "noise", "features", "seed")


def described(fed_data, population, options):
    """A dict of all that is known of a ``Federation`` and its ``population`` before training.

    The options of NAMED. Of the data: ``classes`` (K, 0 where targets are none), ``targets`` in
    words, and ``class_names`` (K texts, or none). Numbers of samples: ``dealt`` to clients,
    ``distinct`` of these, for ``validation``, for the ``server``, for the ``test``, and
    ``held_out`` in clients' own test parts. ``faults``: their specs (F). ``clients``: columns with
    a row a client. ``summary``: numbers of all clients. Labels are counted as the client sees
    them. Nothing is checked.
    """
    # It brings torch, which a page about run files does without.
    from fedmpi.methods.datasets.dataset import num_test, targets_text
    facts = {name: np.asarray(values) for name, (values, *_) in population.items()}
    dataset = fed_data.dataset
    held_out = facts.get("test_samples", np.zeros(1, np.int64))
    federation = {name: options[name] for name in NAMED}
    federation |= {
        "classes": dataset.classes,
        "targets": targets_text(dataset),
        "class_names": list(dataset.names),
        "dealt": len(fed_data.indices),
        "distinct": len(np.unique(fed_data.indices)),
        "validation": len(fed_data.validation),
        "server": len(fed_data.server),
        "test": num_test(dataset),
        "held_out": int(held_out.sum()),
    }
    federation |= clients_of(facts, options["fault"])
    federation["summary"] = _summary(federation["clients"])
    return federation


def clients_of(population, faults):
    """``{"faults": [spec], "clients": {column: (N, ...)}}`` of a run's ``population``.

    ``faults``: the specs of the run's faults, F of them."""
    return {"faults": list(faults), "clients": _clients(population, len(faults))}


def _clients(facts, F):
    """Columns with a row a client: (N,), but labels (N, K) counts and faulty (N, F) bool."""
    N = len(facts["samples"])
    # Targets that are no classes have no histogram.
    labels = facts.get("labels", np.zeros((N, 0), np.int64))
    # The first run files lack some of the columns below.
    nothing = np.zeros(N)
    faulty = np.zeros((N, F), bool)
    for number in range(F):
        faulty[:, number] = facts[f"fault_{number}"]
    return {
        "samples": facts["samples"],
        **_of_classes(labels),
        "noise": facts["noise"],
        "features": facts.get("features", nothing),
        "quality": facts.get("quality", 1 - facts["noise"]),
        # -1: no copy.
        "duplicate_of": facts.get("duplicate_of", nothing - 1),
        "faulty": faulty,
        "labels": labels,
        "name": _names(facts),
    }


def _of_classes(labels):
    """The columns about classes of ``labels (N, K)`` counts; none without classes."""
    if not labels.shape[1]:
        return {}
    share = proportions(labels)
    share_of_all = proportions(labels.sum(axis=0))
    return {
        "classes_held": np.count_nonzero(labels, axis=1),
        "entropy_bits": entropy_bits(labels),
        "top_class": share.argmax(axis=1),
        "top_share": share.max(axis=1),
        "label_skew": total_variation(share, share_of_all),
    }


def _names(facts):
    """(N,) the data set's names of its clients; empty without such names."""
    if "name" not in facts:
        return np.array([], str)
    names = facts["name"]
    # Run files hold bytes.
    if names.dtype.kind == "S":
        return np.char.decode(names, "utf-8", "replace")
    return names


def _summary(clients):
    """Numbers of all clients. Without classes, the numbers about labels are left out."""
    samples = clients["samples"]
    return {
        "clients": len(samples),
        "samples_min": int(samples.min()),
        "samples_median": float(np.median(samples)),
        "samples_max": int(samples.max()),
        **_label_summary(clients),
        "noise_mean": float(clients["noise"].mean()),
        "noise_max": float(clients["noise"].max()),
        "features_mean": float(clients["features"].mean()),
        "faulty": int(clients["faulty"].any(axis=1).sum()),
        "duplicates": int((clients["duplicate_of"] >= 0).sum()),
    }


def _label_summary(clients):
    """``label_skew`` is the mean total variation distance to the labels of all together."""
    if "label_skew" not in clients:
        return {}
    labels_of_all = clients["labels"].sum(axis=0)
    return {
        "entropy_bits_mean": float(clients["entropy_bits"].mean()),
        "entropy_bits_whole": float(entropy_bits(labels_of_all)),
        "label_skew": float(clients["label_skew"].mean()),
        "label_skew_max": float(clients["label_skew"].max()),
    }
