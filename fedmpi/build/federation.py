"""The data set dealt out to clients, and what is wrong with them."""

import hashlib
from typing import NamedTuple

import numpy as np

from fedmpi.build import held_out, server_data
from fedmpi.build.held_out import HeldOut
from fedmpi.build.natural import kept_clients
from fedmpi.core.errors import UserError
from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.dataset import Dataset, as_they_are, digest, num_outputs, taken_as_ids
from fedmpi.methods.noise.corrupt import apply
from fedmpi.methods.partition.natural import Natural
from fedmpi.plugins import fit


class Federation(NamedTuple):
    """A data set dealt out to N clients, the server's validation samples taken from the training data first."""

    dataset: Dataset
    validation: np.ndarray        # indices into x_train
    offsets: np.ndarray           # (N + 1,) int64: client n holds rows offsets[n]:offsets[n + 1] of what follows
    indices: np.ndarray           # int64 into x_train
    labels: np.ndarray            # targets, as the clients see them
    noise: np.ndarray             # (N,) fraction of labels that are wrong
    features: np.ndarray          # (N,) level of feature skew
    faults: np.ndarray            # (F, N) bool: who has which fault
    source: np.ndarray            # (N,) int64: the client whose samples this one duplicates, -1 for none
    quality: np.ndarray           # (N,) in [0, 1]: what an estimator of contributions ought to find
    digest: str                   # of the data, the partition, the labels and all that is done to them
    client_names: tuple = ()      # N texts, where clients are those of the data set
    held_out: HeldOut | None = None     # clients' own test parts
    server: np.ndarray = np.empty(0, np.int64)     # indices into x_train of what the server works with itself

    @property
    def sizes(self):
        return np.diff(self.offsets)

    @property
    def shape(self):
        return self.dataset.x_train.shape[1:]

    @property
    def outputs(self):
        """How many outputs a model of these data has."""
        return num_outputs(self.dataset)


def federation(options, parts, network=None):
    """The ``Federation`` that the options describe; the same for the same options, wherever it is made.

    ``network`` is the model, where one is to be trained: whole numbers are ids for one that looks them up.
    """
    dataset = _as_model_takes(parts.dataset, network)
    owner, names = _natural(options, parts.partition, dataset)
    validation, pool = _split(options, dataset, parts.partition, owner)
    server, pool = _of_server(options, dataset, parts.partition, owner, pool, len(validation))
    shards = _dealt(options, parts.partition, dataset, owner, pool)
    shards, tests = held_out.parted(shards, options["client_test"], options["seed"])
    faulty = _faulty(options, parts.faults)
    shards, source = _copied(options, parts.faults, faulty, shards)
    labels, noise = _labels(options, parts, dataset, shards, source, faulty)
    skew = _levels(options, parts.features, len(shards))
    tests = held_out.held_out(tests, skew, options["client_test"])
    # A duplicate sees what its source sees.
    features = np.where(source >= 0, skew[source], skew)
    offsets = _offsets([len(shard) for shard in shards])
    indices = np.concatenate(shards)
    labels = np.concatenate(labels)
    arrays = (validation, server, offsets, indices, labels, features, faulty, *(tests or ()))
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
        quality=_quality(parts.faults, faulty, noise),
        digest=_digest(dataset, arrays),
        client_names=names,
        held_out=tests,
        server=server)


def _digest(dataset, arrays):
    """sha256 of the data set and of how it is dealt out, as text."""
    name = hashlib.sha256(digest(dataset).encode())
    for array in arrays:
        name.update(array)
    return name.hexdigest()


def named(option, function, *arguments):
    """``function(*arguments)``; where it refuses them, the user is told by which option."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def _as_model_takes(dataset, network):
    """The data set, normalised where its samples may be ids and the model does not look them up in an
    embedding."""
    if not dataset.ids or as_they_are(dataset) or network is None:
        return dataset
    if not fit.looks_up(network):
        return dataset._replace(ids=False)
    return taken_as_ids(dataset)


# ---------------------------------------------------------------- who holds what


def _natural(options, partition, dataset):
    """``(owner (N,), names)`` of the data set's own clients, an owner of -1 is left out; ``(None, ())`` where the
    partition is another one."""
    if not isinstance(partition, Natural):
        return None, ()
    owner, kept = kept_clients(options, partition, dataset.client, dataset.client_names)
    return owner, tuple(dataset.client_names[client] for client in kept)


def _split(options, dataset, partition, owner):
    """``(validation, pool)``: sorted indices of the training samples that the server keeps, and of those dealt out.
    Natural clients, each sample's ``owner``, keep what they need."""
    order = _taken(options, dataset, owner)
    held_back = round(options["validation"] * len(order))
    if owner is None:
        return np.sort(order[:held_back]), np.sort(order[held_back:])
    kept = order[partition.spare(owner[order])][:held_back]
    if held_back and not len(kept):
        raise UserError(f"--validation {options['validation']}: every client needs all of its "
                        "samples; give --validation 0")
    return np.sort(kept), np.setdiff1d(order, kept)


def _of_server(options, dataset, partition, owner, pool, num_validation):
    """``(server, pool)``: sorted indices of the samples that the server works with itself, and of those left."""
    def spare(order):
        return partition.spare(owner[order])

    may_take = spare if owner is not None else None
    return server_data.taken(options, dataset, pool, len(pool) + num_validation, may_take)


def _taken(options, dataset, owner):
    """The indices of the training samples that are used, in random order."""
    wanted, there = options["train_samples"], len(dataset.y_train)
    if wanted > there:
        raise UserError(f"--train-samples {wanted}: {options['dataset']} has {there}")
    order = stream(options["seed"], Purpose.SPLIT).permutation(there)
    if owner is not None:
        order = order[owner[order] >= 0]
    return order[: wanted or None]


def _dealt(options, partition, dataset, owner, pool):
    """Index arrays into x_train, one a client, of the samples of ``pool``."""
    deal, classes = partition, dataset.y_train
    if isinstance(partition, Natural):
        deal, classes = partition.dealt, owner
    gen = stream(options["seed"], Purpose.PARTITION)
    option = f"--partition {options['partition']}"
    shards = named(option, deal, classes[pool], options["clients"], gen)
    return [pool[shard] for shard in shards]


# ---------------------------------------------------------------- what is wrong with them


def _faulty(options, faults):
    """(F, N) bool: which clients have which fault."""
    N, seed = options["clients"], options["seed"]
    rows = [fault.who(N, stream(seed, Purpose.FAULT, number, N)) for number, fault in enumerate(faults)]
    return np.array(rows, bool).reshape(-1, N)


def _copied(options, faults, faulty, shards):
    """``(shards, source (N,))`` after the fault that deals samples anew; a source of -1 is a client's own samples."""
    source = np.full(len(shards), -1)
    dealing = [number for number, fault in enumerate(faults) if fault.shards is not None]
    if len(dealing) > 1:
        raise UserError("--fault duplicate may be given once: a copy of a copy would not be what it is recorded as")
    for number in dealing:
        gen = stream(options["seed"], Purpose.FAULT, number, len(shards), 1)
        option = f"--fault {options['fault'][number]}"
        shards, source = named(option, faults[number].shards, shards, faulty[number], gen)
    return shards, source


def _labels(options, parts, dataset, shards, source, faulty):
    """``(labels as each client sees them, fraction of them that is wrong)``: noise first, which a duplicate shares
    with its ``source (N,)``, then the faults that flip. Targets that are no classes stay as they are."""
    true = [dataset.y_train[shard] for shard in shards]
    labels, rates = _noisy(options, parts.noise, true, dataset.classes)
    if not dataset.classes:
        _refuse_flips(options, parts.faults)
        return labels, rates
    for client in np.flatnonzero(source >= 0):
        labels[client] = _shared_labels(shards, labels, client, source[client])
    for number, fault in enumerate(parts.faults):
        if fault.labels is not None:
            clients = np.flatnonzero(faulty[number])
            _flip(options, number, fault, clients, labels, dataset.classes)
    wrong = [_wrong(*pair) for pair in zip(labels, true)]
    return labels, np.array(wrong)


def _refuse_flips(options, faults):
    """UserError for a fault that changes classes, of data that have none."""
    for spec, fault in zip(options["fault"], faults):
        if fault.labels is not None:
            raise UserError(f"--fault {spec}: it changes classes, and these data have none; leave it out")


def _wrong(labels, true):
    """The fraction of labels that are not the true ones."""
    count = np.count_nonzero(labels != true)
    return count / max(len(true), 1)


def _flip(options, number, fault, clients, labels, classes):
    """Put the wrong labels of a fault, the run's ``number``-th, into ``labels`` of these clients."""
    option = f"--fault {options['fault'][number]}"
    for client in clients:
        gen = stream(options["seed"], Purpose.FAULT, number, client)
        labels[client] = named(option, fault.labels, labels[client], classes, gen)


def _noisy(options, noise, true, classes):
    """``(labels, rates (N,))``: the clients' labels with noise, a list of arrays, and the fraction that is wrong."""
    def gen_of(client):
        return stream(options["seed"], Purpose.NOISE, client)

    return named(f"--noise {options['noise']}", apply, noise, true, classes, gen_of)


def _shared_labels(shards, labels, client, source):
    """The labels of a duplicate: those of its source for the samples that both hold, else its own."""
    theirs = shards[source]
    own = shards[client]
    order = np.argsort(theirs)
    place = np.searchsorted(theirs, own, sorter=order)
    rows = order[place.clip(max=len(order) - 1)]
    both_hold = theirs[rows] == own
    return np.where(both_hold, labels[source][rows], labels[client])


def _levels(options, features, N):
    """(N,): the level of each client's feature skew."""
    gen = stream(options["seed"], Purpose.FEATURES, N)
    return features.levels(N, gen)


def _quality(faults, faulty, noise):
    """(N,) in [0, 1]: the share of right labels, at most what a client's faults leave."""
    left = [np.where(who, fault.quality, 1) for fault, who in zip(faults, faulty)]
    return np.min([1 - noise, *left], axis=0)


# ---------------------------------------------------------------- for the ranks


def shared_arrays(data):
    """What every rank of a node shares; the last two shards are the server's validation samples and those that it works
    with itself."""
    dataset = data.dataset
    held = [data.validation, data.server]
    ends = data.offsets[-1] + np.cumsum([len(rows) for rows in held])
    return {
        "x_train": dataset.x_train,
        "true_labels": dataset.y_train,
        "offsets": np.append(data.offsets, ends),
        "indices": np.concatenate([data.indices, *held]),
        "labels": np.concatenate([data.labels, *(dataset.y_train[rows] for rows in held)]),
        "features": data.features,
        "faults": data.faults,
        "source": data.source,
        **held_out.shared(data.held_out)
    }


def without_pixels(data):
    """The federation without the training pixels, which every node then has once, in its shared file."""
    x = data.dataset.x_train
    empty = np.empty((0, *x.shape[1:]), x.dtype)
    return data._replace(dataset=data.dataset._replace(x_train=empty))


def cut(data, most):
    """The federation with at most ``most`` samples a client."""
    counts = np.minimum(data.sizes, most)
    ends = data.offsets[:-1] + counts
    spans = zip(data.offsets, ends)
    rows = np.concatenate([np.arange(begin, end) for begin, end in spans])
    return data._replace(
        offsets=_offsets(counts),
        indices=data.indices[rows],
        labels=data.labels[rows])


def _offsets(counts):
    """(N + 1,) int64: where the rows of each client begin, and where the last ones end."""
    ends = np.cumsum(counts)
    return np.concatenate([[0], ends]).astype(np.int64)
