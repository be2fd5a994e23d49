"""The numbers of a partition: what every client holds, how far labels are skewed, what is wrong
with whom."""

import numpy as np

from fedmpi.read.report.statistics import entropy_bits, proportions, total_variation

NAMED = ("dataset", "partition", "noise", "features", "seed")    # options that say what was dealt out


def described(fed_data, population, options):
    """A dict of what is known of a ``Federation`` and its ``population`` before any training.

    The options that made it; ``classes`` (K, 0 where targets are none), ``targets``, what they are,
    in words; ``class_names`` (K texts, or none), ``faults`` (their specs, F), ``dealt``,
    ``distinct``, ``validation``, ``server``, ``test`` and, in clients' own test parts, ``held_out``
    (numbers of samples); ``clients``, a dict of columns with a row a client; ``summary``, numbers
    of all clients. Labels are counted as the client sees them. Nothing is checked.
    """
    # It brings torch, which a page about run files does without.
    from fedmpi.methods.datasets.dataset import num_test, targets_text
    facts = {name: np.asarray(values) for name, (values, *_) in population.items()}
    found = {name: options[name] for name in NAMED} | dict(
        classes=fed_data.dataset.classes, targets=targets_text(fed_data.dataset),
        class_names=list(fed_data.dataset.names), dealt=len(fed_data.indices),
        distinct=len(np.unique(fed_data.indices)), validation=len(fed_data.validation),
        server=len(fed_data.server), test=num_test(fed_data.dataset),
        held_out=int(facts.get("test_samples", np.zeros(1, np.int64)).sum())
    ) | clients_of(facts, options["fault"])
    return found | dict(summary=_summary(found["clients"]))


def clients_of(population, faults):
    """``faults`` (their specs, F) and ``clients``, the columns with a row a client, of a population
    as a run has it."""
    return dict(faults=list(faults), clients=_clients(population, len(faults)))


def _clients(facts, F):
    """Columns with a row a client: (N,), but labels (N, K) counts and faulty (N, F) bool."""
    # Of targets that are no classes there is nothing to count.
    labels = facts.get("labels", np.zeros((len(facts["samples"]), 0), np.int64))
    nothing = np.zeros(len(labels))              # of what the first run files do not have
    faulty = [facts[f"fault_{number}"] for number in range(F)]
    return dict(
        samples=facts["samples"], **_of_classes(labels), noise=facts["noise"], features=facts.get("features", nothing),
        quality=facts.get("quality", 1 - facts["noise"]), duplicate_of=facts.get("duplicate_of", nothing - 1),
        faulty=np.array(faulty, bool).reshape(F, len(labels)).T, labels=labels, name=_names(facts))


def _of_classes(labels):
    """The columns about classes of ``labels (N, K)`` counts; none where there are no classes."""
    if not labels.shape[1]:
        return {}
    share = proportions(labels)
    return dict(classes_held=np.count_nonzero(labels, axis=1), entropy_bits=entropy_bits(labels),
                top_class=share.argmax(axis=1), top_share=share.max(axis=1),
                label_skew=total_variation(share, _whole(labels)))


def _names(facts):
    """(N,) texts that the data set has for its clients; empty where it has none."""
    if "name" not in facts:
        return np.array([], str)
    names = facts["name"]
    return np.char.decode(names, "utf-8", "replace") if names.dtype.kind == "S" else names


def _whole(labels):
    """(K,) proportions of the labels of all clients together."""
    return proportions(labels.sum(axis=0))


def _summary(clients):
    """Numbers of all clients; ``label_skew`` is the mean total variation distance to the labels of
    all together. Those about labels are left out where there are no classes."""
    samples, skew = clients["samples"], {}
    if "label_skew" in clients:
        skew = dict(entropy_bits_mean=float(clients["entropy_bits"].mean()),
                    entropy_bits_whole=float(entropy_bits(clients["labels"].sum(axis=0))),
                    label_skew=float(clients["label_skew"].mean()), label_skew_max=float(clients["label_skew"].max()))
    return dict(
        clients=len(samples), samples_min=int(samples.min()), samples_median=float(np.median(samples)),
        samples_max=int(samples.max()), **skew,
        noise_mean=float(clients["noise"].mean()), noise_max=float(clients["noise"].max()),
        features_mean=float(clients["features"].mean()), faulty=int(clients["faulty"].any(axis=1).sum()),
        duplicates=int((clients["duplicate_of"] >= 0).sum()))
