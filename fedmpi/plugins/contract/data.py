"""The contract of data sets, partitions, and changes of data: noise, features, faults."""

import numpy as np

from fedmpi.methods.datasets.dataset import checked
from fedmpi.plugins.contract.inputs import changed_labels, check_inputs
from fedmpi.plugins.contract.require import (check_array, check_tuple, in_words, require,
                                             with_functions)
from fedmpi.plugins.contract.strategies import check_trained


def dataset(made, option):
    """The ``Dataset``, its classes, means and deviations as Python's own numbers."""
    for name in ("mean", "std"):
        values = getattr(made, name)
        fits = isinstance(values, (tuple, list, np.ndarray)) and np.ndim(values) == 1
        require(fits, option, f"{name} as a tuple with a number for each channel",
                in_words(values),
                "fedmpi.methods.datasets.dataset.moments(x_train) gives both")
    is_integer = isinstance(made.classes, (int, np.integer))
    is_whole = is_integer and not isinstance(made.classes, bool)
    require(is_whole, option, "classes as a whole number", in_words(made.classes),
            "see fedmpi.core.parts.Dataset")
    means = map(float, made.mean)
    deviations = map(float, made.std)
    # Numbers of numpy or torch would end up in a run file.
    plain = made._replace(classes=int(made.classes), mean=tuple(means), std=tuple(deviations))
    return checked(plain, option.removeprefix("--dataset "))


# ---------------------------------------------------------------- partitions


def partition(part, option):
    """The function of a partition, its index arrays checked."""
    is_function = callable(part)
    require(is_function, option,
            "a function (labels, clients, gen) -> index arrays from the factory", in_words(part),
            "return the function that deals")

    def deal(labels, clients, gen):
        shards = part(labels, clients, gen)
        _check_shards(shards, clients, option)
        samples = np.concatenate(shards).astype(np.int64)
        _check_samples(samples, len(labels), option)
        # All shards go into one vector, which ranks share.
        return [shard.astype(np.int64) for shard in shards]

    return deal


def _check_shards(shards, clients, option):
    """The shards must be an array of integers a client, none of them empty."""
    fits = isinstance(shards, (list, tuple)) and len(shards) == clients
    require(fits, option, f"a list of {clients} index arrays, one a client", in_words(shards),
            "return one for each")
    for shard in shards:
        is_vector = isinstance(shard, np.ndarray) and shard.ndim == 1
        fits = is_vector and shard.dtype.kind in "iu"
        require(fits, option, "each client's samples as an array (n,) of integers",
                in_words(shard), "use numpy.asarray(samples, dtype=numpy.int64)")
    for client, shard in enumerate(shards):
        require(len(shard), option, "samples for every client", f"none for client {client}",
                "deal each one at least, or ask for fewer --clients")


def _check_samples(samples, num_labels, option):
    """The dealt samples must exist, each of them once."""
    lowest = samples.min()
    highest = samples.max()
    inside = 0 <= lowest and highest < num_labels
    require(inside, option, f"samples in [0, {num_labels})", f"{lowest} to {highest}",
            "they count the labels that it is given")
    counts = np.bincount(samples, minlength=1)
    most = int(counts.max())
    require(most == 1, option, "each sample with one client at most",
            f"one that is dealt {most} times", "--fault duplicate is for copies")


# ---------------------------------------------------------------- changes


def noise(part, option):
    """The ``Noise``, its levels and labels checked."""

    def rates(clients, gen):
        levels = part.rates(clients, gen)
        what = "the levels that rates returns"
        return check_array(levels, (clients,), "fiub", option, what)

    def corrupt(labels, level, classes, gen, *common):

        def change(own):
            return part.corrupt(own, level, classes, gen, *common)

        return changed_labels(change, labels, classes, option)

    return part._replace(rates=rates, corrupt=corrupt)


def features(part, option):
    """The ``Features``, their levels and inputs checked."""

    def levels(clients, gen):
        numbers = part.levels(clients, gen)
        check_array(numbers, (clients,), "fiub", option, "what levels returns")
        return numbers.astype(np.float64)

    def apply(inputs, labels, level, classes, gen):
        changed = part.apply(inputs, labels, level, classes, gen)
        return check_inputs(changed, inputs, option)

    return part._replace(levels=levels, apply=apply)


def fault(part, option):
    """The ``Fault``, its functions checked."""
    is_number = isinstance(part.quality, (int, float))
    is_share = is_number and 0 <= part.quality <= 1
    require(is_share, option, "a quality in [0, 1]", in_words(part.quality),
            "1 is an honest client's")

    def who(clients, gen):
        is_faulty = part.who(clients, gen)
        return check_array(is_faulty, (clients,), "b", option, "what who returns")

    def labels(own_labels, classes, gen):

        def change(own):
            return part.labels(own, classes, gen)

        return changed_labels(change, own_labels, classes, option)

    def inputs(own_inputs, gen):
        changed = part.inputs(own_inputs, gen)
        return check_inputs(changed, own_inputs, option)

    def tokens(stretch, gen):
        changed = part.tokens(stretch, gen)
        return check_array(changed, stretch.shape, "i", option, "what tokens returns")

    def shards(own_shards, is_faulty, gen):
        answer = part.shards(own_shards, is_faulty, gen)
        check_tuple(answer, 2, option, "(shards, source) from shards")
        changed, source = answer
        clients = len(own_shards)
        fits = isinstance(changed, list) and len(changed) == clients
        require(fits, option, f"a list of {clients} index arrays from shards", in_words(changed),
                "keep their number")
        check_array(source, (clients,), "iu", option, "the source that shards returns")
        return answer

    def local(task, train, previous):
        trained = part.local(task, train, previous)
        check_trained(trained, option)
        return trained

    return with_functions(part, {
        "who": who,
        "labels": labels,
        "inputs": inputs,
        "tokens": tokens,
        "shards": shards,
        "local": local,
    })
