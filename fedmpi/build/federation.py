"""The data set dealt out to clients, with their noise, skew and faults."""

import hashlib
from typing import NamedTuple

import numpy as np

from fedmpi.build import held_out, server_data, stretches
from fedmpi.build.held_out import HeldOut
from fedmpi.build.natural import kept_clients
from fedmpi.core.errors import UserError
from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.dataset import (Dataset, as_they_are, digest, num_outputs,
                                             num_test, sample_shape, taken_as_ids)
from fedmpi.methods.noise.corrupt import apply
from fedmpi.methods.partition.natural import Natural
from fedmpi.plugins import fit


class Federation(NamedTuple):
    """A data set dealt out to N clients. The server takes its validation samples first, from the
    training data."""

    dataset: Dataset
    # Indices into x_train.
    validation: np.ndarray
    # (N + 1,) int64: client n holds rows offsets[n]:offsets[n + 1] of indices and labels.
    offsets: np.ndarray
    # int64 indices into x_train of all clients' samples, one client after the other.
    indices: np.ndarray
    # Targets, as the clients see them.
    labels: np.ndarray
    # (N,) fraction of wrong labels.
    noise: np.ndarray
    # (N,) level of feature skew.
    features: np.ndarray
    # (F, N) bool: whether a client has a fault.
    faults: np.ndarray
    # (N,) int64: a duplicate's source, the client with the same samples; -1 for no duplicate.
    source: np.ndarray
    # (N,) in [0, 1]: the truth for estimators of contributions.
    quality: np.ndarray
    # sha256 of the data, the partition, the labels and all changes to them.
    digest: str
    # N texts, if the clients are the data set's own.
    client_names: tuple = ()
    # Clients' own test parts.
    held_out: HeldOut | None = None
    # Indices into x_train of the samples for the strategy's work on the server.
    server: np.ndarray = np.empty(0, np.int64)
    # The number of outputs of a model for these data and their task.
    outputs: int = 1

    @property
    def sizes(self):
        return np.diff(self.offsets)

    @property
    def shape(self):
        return sample_shape(self.dataset)


def samples_text(data):
    """How many samples each part of a ``Federation`` has."""
    training = len(data.indices)
    validation = len(data.validation)
    server = len(data.server)
    test = num_test(data.dataset)
    parts = [f"{training:,} training", f"{validation:,} validation"]
    if server:
        parts.append(f"{server:,} of the server's own")
    parts.append(f"{test:,} test samples")
    return ", ".join(parts)


def federation(options, parts, network=None):
    """The ``Federation`` of the options: the same for the same options, on every machine.

    ``network`` is the model, if one is to be trained. Whole numbers are ids for a model that looks
    them up.
    """
    dataset = _as_model_takes(parts.dataset, network)
    deal = _dealt if dataset.stream is None else stretches.dealt
    validation, server, shards, tests, names = deal(options, parts.partition, dataset)
    faulty = _faulty(options, parts.faults)
    shards, source = _copied(options, parts.faults, faulty, shards)
    if dataset.stream is not None:
        stretches.check_faults(options, parts.faults, shards, dataset.stream.window)
    labels, noise = _labels(options, parts, dataset, shards, source, faulty)
    skew = _levels(options, parts.features, len(shards))
    tests = held_out.held_out(tests, skew, options["client_test"])
    of_source = skew[source]
    # A duplicate sees what its source sees.
    features = np.where(source >= 0, of_source, skew)
    sizes = [len(shard) for shard in shards]
    offsets = _offsets(sizes)
    indices = np.concatenate(shards)
    # One vector for all clients: ranks of a node share it in one file.
    labels = np.concatenate(labels)
    arrays = (validation, server, offsets, indices, labels, features, faulty, *(tests or ()))
    quality = _quality(parts.faults, faulty, noise)
    data_digest = _digest(dataset, arrays)
    return Federation(
        dataset=dataset,
        validation=validation,
        offsets=offsets,
        indices=indices,
        labels=labels,
        noise=noise,
        features=features,
        faults=faulty,
        source=source,
        quality=quality,
        digest=data_digest,
        client_names=names,
        held_out=tests,
        server=server,
        outputs=num_outputs(dataset, parts.task))


def _digest(dataset, arrays):
    """sha256 of the data set and of its partition, as text."""
    text = digest(dataset).encode()
    name = hashlib.sha256(text)
    for array in arrays:
        name.update(array)
    return name.hexdigest()


def named(option, function, *arguments):
    """``function(*arguments)``; its ValueError becomes a UserError that names the ``option``."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def _as_model_takes(dataset, network):
    """The data set for this model: samples can be ids only for a model with an embedding."""
    if not dataset.ids or as_they_are(dataset) or network is None:
        return dataset
    looks_up = fit.looks_up(network)
    if not looks_up:
        # Such a model takes the numbers as values.
        return dataset._replace(ids=False)
    return taken_as_ids(dataset)


# ---------------------------------------------------------------- samples of server and clients


def _dealt(options, partition, dataset):
    """A ``stretches.Dealt`` of samples that are each by itself: indices into x_train."""
    owner, names = _natural(options, partition, dataset)
    validation, pool = _split(options, dataset, partition, owner)
    server, pool = _of_server(options, dataset, partition, owner, pool, len(validation))
    shards = _shards(options, partition, dataset, owner, pool)
    shards, tests = held_out.parted(shards, options["client_test"], options["seed"])
    return stretches.Dealt(validation, server, shards, tests, names)


def _natural(options, partition, dataset):
    """``(owner (N,), names)`` of natural clients; ``(None, ())`` for any other partition.

    Samples with an owner of -1 are left out.
    """
    if not isinstance(partition, Natural):
        return None, ()
    all_names = dataset.client_names
    owner, kept = kept_clients(options, partition, dataset.client, all_names)
    names = tuple(all_names[client] for client in kept)
    return owner, names


def _split(options, dataset, partition, owner):
    """``(validation, pool)``: sorted indices of the server's validation samples, and of the rest.

    Natural clients, each sample's ``owner``, keep as many samples as they need.
    """
    order = _taken(options, dataset, owner)
    held_back = round(options["validation"] * len(order))
    if owner is None:
        validation = order[:held_back]
        pool = order[held_back:]
        return np.sort(validation), np.sort(pool)
    # A natural client keeps as many samples as its partition asks for.
    spare = partition.spare(owner[order])
    may_take = order[spare]
    kept = may_take[:held_back]
    if held_back and not len(kept):
        raise UserError(f"--validation {options['validation']}: every client needs all of its "
                        "samples; give --validation 0")
    return np.sort(kept), np.setdiff1d(order, kept)


def _of_server(options, dataset, partition, owner, pool, num_validation):
    """``(server, pool)``: sorted indices of the server's own samples, and of the rest."""
    def spare(order):
        return partition.spare(owner[order])

    may_take = None if owner is None else spare
    total = len(pool) + num_validation
    return server_data.taken(options, dataset, pool, total, may_take)


def _taken(options, dataset, owner):
    """Indices of the training samples in use, in random order."""
    wanted = options["train_samples"]
    total = len(dataset.y_train)
    if wanted > total:
        raise UserError(f"--train-samples {wanted}: {options['dataset']} has {total}")
    gen = stream(options["seed"], Purpose.SPLIT)
    order = gen.permutation(total)
    if owner is not None:
        order = order[owner[order] >= 0]
    return order[: wanted or None]


def _shards(options, partition, dataset, owner, pool):
    """Index arrays into x_train, one a client, of the samples of ``pool``."""
    deal = partition
    groups = dataset.y_train
    # Natural clients are dealt by owner, as others are by class.
    if isinstance(partition, Natural):
        deal = partition.dealt
        groups = owner
    gen = stream(options["seed"], Purpose.PARTITION)
    option = f"--partition {options['partition']}"
    own_groups = groups[pool]
    shards = named(option, deal, own_groups, options["clients"], gen)
    return [pool[shard] for shard in shards]


# ---------------------------------------------------------------- noise, skew and faults


def _faulty(options, faults):
    """(F, N) bool: whether a client has a fault."""
    N = options["clients"]
    seed = options["seed"]
    rows = []
    for number, fault in enumerate(faults):
        gen = stream(seed, Purpose.FAULT, number, N)
        is_faulty = fault.who(N, gen)
        rows.append(is_faulty)
    table = np.array(rows, bool)
    # Without any fault, this is (0, N) too.
    return table.reshape(-1, N)


def _copied(options, faults, faulty, shards):
    """``(shards, source (N,))`` after the fault of duplicates; a source of -1 stands for a client's
    own samples."""
    N = len(shards)
    copying = [number for number, fault in enumerate(faults) if fault.shards is not None]
    if not copying:
        no_source = np.full(N, -1)
        return shards, no_source
    if len(copying) > 1:
        raise UserError("--fault duplicate may be given once: a copy of a copy would not be what "
                        "it is recorded as")
    number, = copying
    option = f"--fault {options['fault'][number]}"
    # Another stream than the one of _faulty.
    gen = stream(options["seed"], Purpose.FAULT, number, N, 1)
    copy = faults[number].shards
    return named(option, copy, shards, faulty[number], gen)


def _labels(options, parts, dataset, shards, source, faulty):
    """``(each client's labels, fraction of wrong ones (N,))``: noise first, then flips by faults.

    A duplicate has the noisy labels of its ``source (N,)``. Flips need classes.
    """
    true = [dataset.y_train[shard] for shard in shards]
    labels, rates = _noisy(options, parts.noise, true, dataset.classes)
    if not dataset.classes:
        _refuse_flips(options, parts.faults)
        return labels, rates
    duplicates = np.flatnonzero(source >= 0)
    for client in duplicates:
        own_source = source[client]
        labels[client] = _shared_labels(shards, labels, client, own_source)
    for number, fault in enumerate(parts.faults):
        # This fault leaves labels alone.
        if fault.labels is None:
            continue
        clients = np.flatnonzero(faulty[number])
        _flip(options, number, fault, clients, labels, dataset.classes)
    pairs = zip(labels, true)
    # Counted last: a flip may make a wrong label right.
    wrong = [_wrong(seen, right) for seen, right in pairs]
    return labels, np.array(wrong)


def _refuse_flips(options, faults):
    """UserError for a fault that changes classes: these data have none."""
    for spec, fault in zip(options["fault"], faults):
        if fault.labels is not None:
            raise UserError(f"--fault {spec}: it changes classes, and these data have none; "
                            "leave it out")


def _wrong(labels, true):
    """The fraction of wrong labels."""
    is_wrong = labels != true
    count = np.count_nonzero(is_wrong)
    num_labels = max(len(true), 1)
    return count / num_labels


def _flip(options, number, fault, clients, labels, classes):
    """Write the wrong labels of the run's ``number``-th fault into ``labels`` of these clients."""
    option = f"--fault {options['fault'][number]}"
    seed = options["seed"]
    # A stream a client: its labels do not depend on the other clients.
    for client in clients:
        gen = stream(seed, Purpose.FAULT, number, client)
        labels[client] = named(option, fault.labels, labels[client], classes, gen)


def _noisy(options, noise, true, classes):
    """``(labels, rates (N,))``: the clients' labels with noise, a list of arrays, and the fraction
    of wrong ones."""
    def gen_of(client):
        return stream(options["seed"], Purpose.NOISE, client)

    return named(f"--noise {options['noise']}", apply, noise, true, classes, gen_of)


def _shared_labels(shards, labels, client, source):
    """The labels of a duplicate: its source's for all samples of both clients, else its own."""
    theirs = shards[source]
    own = shards[client]
    # A shard is in the order of its deal, and a search needs a sorted one.
    order = np.argsort(theirs)
    place = np.searchsorted(theirs, own, sorter=order)
    last = len(order) - 1
    # A sample beyond the source's last one has a place after the end.
    place = place.clip(max=last)
    rows = order[place]
    both_hold = theirs[rows] == own
    all_labels = labels[source]
    their_labels = all_labels[rows]
    return np.where(both_hold, their_labels, labels[client])


def _levels(options, features, N):
    """(N,): the level of each client's feature skew."""
    gen = stream(options["seed"], Purpose.FEATURES, N)
    return features.levels(N, gen)


def _quality(faults, faulty, noise):
    """(N,) in [0, 1]: the share of right labels, or less for a client with faults."""
    limits = [1 - noise]
    for fault, clients in zip(faults, faulty):
        limit = np.where(clients, fault.quality, 1)
        limits.append(limit)
    return np.min(limits, axis=0)


# ---------------------------------------------------------------- for the ranks


def shared_arrays(data):
    """``{name: array}`` that all ranks of a node share.

    Two shards follow the clients' shards: the validation samples, and the samples for the server's
    own work.
    """
    dataset = data.dataset
    of_server = [data.validation, data.server]
    sizes = [len(rows) for rows in of_server]
    own_ends = np.cumsum(sizes)
    ends = data.offsets[-1] + own_ends
    true_labels = [dataset.y_train[rows] for rows in of_server]
    offsets = np.append(data.offsets, ends)
    indices = np.concatenate([data.indices, *of_server])
    labels = np.concatenate([data.labels, *true_labels])
    of_tests = held_out.shared(data.held_out)
    return {
        "x_train": dataset.x_train,
        "true_labels": dataset.y_train,
        "offsets": offsets,
        "indices": indices,
        "labels": labels,
        "features": data.features,
        "faults": data.faults,
        "source": data.source,
        **of_tests
    }


def without_pixels(data):
    """The federation without the training pixels: every node has them once, in its shared file."""
    # The shape stays, as models are built from it.
    x = data.dataset.x_train
    shape = (0, *x.shape[1:])
    empty = np.empty(shape, x.dtype)
    dataset = data.dataset._replace(x_train=empty)
    return data._replace(dataset=dataset)


def cut(data, most):
    """The federation with at most ``most`` samples a client."""
    counts = np.minimum(data.sizes, most)
    starts = data.offsets[:-1]
    ends = starts + counts
    of_clients = []
    for begin, end in zip(data.offsets, ends):
        rows_of_client = np.arange(begin, end)
        of_clients.append(rows_of_client)
    rows = np.concatenate(of_clients)
    offsets = _offsets(counts)
    indices = data.indices[rows]
    labels = data.labels[rows]
    return data._replace(offsets=offsets, indices=indices, labels=labels)


def _offsets(counts):
    """(N + 1,) int64: the start of each client's rows, and the end of the last client's."""
    ends = np.cumsum(counts)
    return np.concatenate([[0], ends]).astype(np.int64)
