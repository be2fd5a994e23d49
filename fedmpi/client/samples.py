"""The samples that clients train on: the node's shared arrays, as each client's skew and faults have made them."""

from typing import Any, NamedTuple

import torch

from fedmpi.compute.staging import resident
from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.dataset import inputs, laid


SERVER = ("validation", "server")        # what the server holds, in the order of its shards: behind the clients'


class Samples(NamedTuple):
    """Where samples come from, and what is done to them before a model sees them.

    ``data`` holds the node's shared ``x_train``, and ``offsets``, ``indices`` and ``labels`` of the partition, whose
    last two shards are what the server holds, see SERVER, with each client's ``features``, ``faults`` and ``source``;
    where clients have test parts of their own, also ``test_offsets``, ``test_indices`` and ``test_features``.
    """

    data: dict
    kept: Any                     # staging.Resident: the same on a GPU, else None
    mean: list
    std: list
    device: torch.device
    features: Any                 # fedmpi.core.parts.Features
    faults: tuple                 # of fedmpi.core.parts.Fault
    seed: int
    classes: int

    @property
    def N(self):
        """How many clients there are; the server's shards come after theirs."""
        return len(self.data["features"])


def samples(data, meta, parts, device):
    """The ``Samples`` of a rank with these shared ``data``, by the set-up message ``meta``."""
    return Samples(data, resident(data, device), meta["mean"], meta["std"], device, parts.features, parts.faults,
                   parts.seed, meta["classes"])


def of_server(samples, on):
    """The number of the shard that the server holds under the name ``on``."""
    return samples.N + SERVER.index(on)


def size(samples, shard):
    """How many samples a shard has."""
    start, stop = samples.data["offsets"][shard: shard + 2]
    return int(stop - start)


def raw(samples, shard, rows=slice(None)):
    """``(inputs, labels, indices)`` of the chosen rows of a shard, before anything is done to the inputs."""
    data = samples.data
    start, stop = data["offsets"][shard: shard + 2]
    index = data["indices"][start:stop][rows]
    if samples.kept:
        pixels = samples.kept.x_train[samples.kept.indices[start:stop][rows]]
        labels = samples.kept.labels[start:stop][rows]
    else:
        pixels = torch.from_numpy(data["x_train"][index]).to(samples.device)
        labels = torch.from_numpy(data["labels"][start:stop][rows]).to(samples.device)
    return inputs(pixels, samples.mean, samples.std), labels, index


def of_client(samples, client):
    """``(inputs, labels)`` of a client, or of the server's shard, as its feature skew and its faults have made
    them."""
    x, labels, index = raw(samples, client)
    if client >= samples.N:
        return laid(x), labels
    x = _skewed(samples, client, x, index)
    for number, (fault, has_it) in enumerate(faults_of(samples, client)):
        if has_it and fault.inputs is not None:
            x = fault.inputs(x, stream(samples.seed, Purpose.FAULT, number, client, 1))
    return laid(x), labels


def _skewed(samples, client, x, index):
    """The inputs ``x`` of a client by its level of feature skew."""
    level = float(samples.data["features"][client])
    if not level:
        return x
    true_labels = torch.from_numpy(samples.data["true_labels"][index]).to(samples.device)
    # A duplicate's inputs are those of the client that it copies.
    source = int(samples.data["source"][client])
    gen = stream(samples.seed, Purpose.FEATURES, client if source < 0 else source)
    return samples.features.apply(x, true_labels, level, samples.classes, gen)


def own_test(samples, client):
    """``(inputs, labels)`` of a client's own test part: by its own feature skew, without faults; labels are true."""
    data = samples.data
    start, stop = data["test_offsets"][client: client + 2]
    index = data["test_indices"][start:stop]
    if samples.kept:
        pixels = samples.kept.x_train[torch.from_numpy(index.copy()).to(samples.device)]
    else:
        pixels = torch.from_numpy(data["x_train"][index]).to(samples.device)
    x = inputs(pixels, samples.mean, samples.std)
    labels = torch.from_numpy(data["true_labels"][index]).to(samples.device)
    level = float(data["test_features"][client])
    if level:
        # The draws that make a client's skew its own come first, hence the same as for its training part.
        gen = stream(samples.seed, Purpose.FEATURES, client)
        x = samples.features.apply(x, labels, level, samples.classes, gen)
    return laid(x), labels


def faults_of(samples, client):
    """``[(fault, whether the client has it)]`` of each kind of fault; none for the server's own samples."""
    if client >= samples.N:
        return []
    return list(zip(samples.faults, samples.data["faults"][:, client]))


def trains_otherwise(samples, client):
    """Whether a fault of the client stands in for its training."""
    return any(has_it and fault.local is not None for fault, has_it in faults_of(samples, client))
