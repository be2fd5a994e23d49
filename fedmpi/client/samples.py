"""Clients' samples: the node's shared arrays, changed by each client's feature skew and faults."""

from typing import Any, NamedTuple

import numpy as np
import torch

from fedmpi.compute.staging import resident
from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.dataset import inputs, laid
from fedmpi.methods.datasets.stream import in_order, windows

# The server's shards, in their order; they come after the clients'.
SERVER = ("validation", "server")


class Samples(NamedTuple):
    """The source of samples, and the changes before a model sees them.

    ``data`` holds the node's shared arrays: ``x_train``; the partition's ``offsets``, ``indices``
    and ``labels``, of clients and then of SERVER; each client's ``features``, ``faults`` and
    ``source``. If clients have test parts of their own, also ``test_offsets``, ``test_indices``
    and ``test_features``.
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
    # Tokens of a sample that is a window of a stream; 0: samples are rows of x_train.
    window: int = 0

    @property
    def N(self):
        """The number of clients; the server's shards come after theirs."""
        return len(self.data["features"])


def samples(data, meta, parts, device):
    """The ``Samples`` of a rank with these shared ``data``, by the set-up message ``meta``."""
    return Samples(
        data=data,
        kept=resident(data, device),
        mean=meta["mean"],
        std=meta["std"],
        device=device,
        features=parts.features,
        faults=parts.faults,
        seed=parts.seed,
        classes=meta["classes"],
        window=meta["window"])


def of_server(samples, on):
    """The number of the shard that the server holds under the name ``on``."""
    return samples.N + SERVER.index(on)


def size(samples, shard):
    """The number of samples of a shard."""
    start, stop = samples.data["offsets"][shard: shard + 2]
    return int(stop - start)


def raw(samples, shard, rows=slice(None)):
    """``(inputs, labels, indices)`` of some rows of a shard, before any change of the inputs."""
    data, kept = samples.data, samples.kept
    start, stop = data["offsets"][shard: shard + 2]
    index = data["indices"][start:stop]
    index = index[rows]
    if samples.window:
        return *_windows(samples, index), index
    if kept:
        # On a GPU the samples lie there already.
        on_device = kept.indices[start:stop]
        pixels = kept.x_train[on_device[rows]]
        labels = kept.labels[start:stop]
        labels = labels[rows]
    else:
        pixels = data["x_train"][index]
        pixels = _on_device(samples, pixels)
        labels = data["labels"][start:stop]
        labels = _on_device(samples, labels[rows])
    x = inputs(pixels, samples.mean, samples.std)
    return x, labels, index


def _windows(samples, starts):
    """``(inputs, targets)``, both int64 (n, T): the windows that begin at ``starts (n,)``."""
    arrays = windows(samples.data["x_train"], starts, samples.window)
    return [_on_device(samples, array) for array in arrays]


def stretch(samples, shard):
    """(m,) int64: the tokens of a client's stretch, by its faults; None where samples are no
    windows."""
    if not samples.window or shard >= samples.N:
        return None
    data = samples.data
    begin, end = data["offsets"][shard: shard + 2]
    starts = data["indices"][begin:end]
    first = starts[0]
    # Of the tokens after the last window only its last target is used.
    after_last = starts[-1] + samples.window + 1
    tokens = data["x_train"][first:after_last].astype(np.int64)
    for number, fault in enumerate(samples.faults):
        if fault.tokens is not None and _has(samples, shard, number):
            gen = stream(samples.seed, Purpose.FAULT, number, shard, 1)
            tokens = fault.tokens(tokens, gen)
    return _on_device(samples, tokens)


def _on_device(samples, array):
    """A numpy array as a tensor on the device."""
    return torch.from_numpy(array).to(samples.device)


def first_two(samples):
    """Two inputs as models get them, the first of the training part."""
    if samples.window:
        first = np.arange(2)
        return _windows(samples, first)[0]
    pixels = samples.data["x_train"][:2].copy()
    return inputs(_on_device(samples, pixels), samples.mean, samples.std)


def of_client(samples, client):
    """``(inputs, labels)`` of a client, by its feature skew and faults, or of a server's shard."""
    if any(fault.tokens is not None for fault in faults_of(samples, client)):
        return in_order(stretch(samples, client), samples.window)
    x, labels, index = raw(samples, client)
    if client >= samples.N:
        return laid(x), labels
    x = _skewed(samples, client, x, index)
    for number, fault in enumerate(samples.faults):
        if fault.inputs is not None and _has(samples, client, number):
            # 1: the fault's labels are drawn without it.
            gen = stream(samples.seed, Purpose.FAULT, number, client, 1)
            x = fault.inputs(x, gen)
    return laid(x), labels


def _skewed(samples, client, x, index):
    """The inputs ``x`` of a client by its level of feature skew."""
    level = float(samples.data["features"][client])
    if not level:
        return x
    true_labels = samples.data["true_labels"][index]
    true_labels = _on_device(samples, true_labels)
    source = int(samples.data["source"][client])
    if source >= 0:
        # A duplicate has the skew of the client that it copies.
        client = source
    gen = stream(samples.seed, Purpose.FEATURES, client)
    return samples.features.apply(x, true_labels, level, samples.classes, gen)


def own_test(samples, client):
    """``(inputs, labels)`` of a client's own test part: by its feature skew, without faults.

    The labels are the true ones.
    """
    data = samples.data
    start, stop = data["test_offsets"][client: client + 2]
    index = data["test_indices"][start:stop]
    if samples.window:
        return _windows(samples, index)
    if samples.kept:
        on_device = _on_device(samples, index.copy())
        pixels = samples.kept.x_train[on_device]
    else:
        pixels = data["x_train"][index]
        pixels = _on_device(samples, pixels)
    x = inputs(pixels, samples.mean, samples.std)
    labels = data["true_labels"][index]
    labels = _on_device(samples, labels)
    level = float(data["test_features"][client])
    if level:
        # The draws of a client's own skew come first: they are those of its training part.
        gen = stream(samples.seed, Purpose.FEATURES, client)
        x = samples.features.apply(x, labels, level, samples.classes, gen)
    return laid(x), labels


def faults_of(samples, client):
    """The client's ``Fault``s, in their order; none for the server's shards."""
    if client >= samples.N:
        return []
    faults = []
    for number, fault in enumerate(samples.faults):
        if _has(samples, client, number):
            faults.append(fault)
    return faults


def _has(samples, client, number):
    """Whether the client has the fault ``number``."""
    return samples.data["faults"][number, client]


def trains_otherwise(samples, client):
    """Whether a fault of the client replaces its training."""
    return any(fault.local is not None for fault in faults_of(samples, client))
