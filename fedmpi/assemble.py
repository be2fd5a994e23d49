"""From options to the server's parts: the federation of data, the evaluators, the Fed."""

import hashlib
from typing import NamedTuple

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.build import model
from fedmpi.data.dataset import Dataset, digest, inputs
from fedmpi.errors import UserError
from fedmpi.evaluate import evaluator
from fedmpi.flat import bind
from fedmpi.flops import uses
from fedmpi.noise.model import apply
from fedmpi.rng import Purpose, stream
from fedmpi.server import Fed
from fedmpi.wire import positions


class Federation(NamedTuple):
    """A data set dealt out to N clients, the server's validation samples taken from the training data first."""

    dataset: Dataset
    validation: np.ndarray        # indices into x_train
    offsets: np.ndarray           # (N + 1,) int64: client n holds rows offsets[n]:offsets[n + 1] of what follows
    indices: np.ndarray           # int64 into x_train
    labels: np.ndarray            # int64, noise included
    noise: np.ndarray             # (N,) fraction of labels that are wrong
    digest: str                   # of the data, the partition and the noisy labels

    @property
    def sizes(self):
        return np.diff(self.offsets)

    @property
    def shape(self):
        return self.dataset.x_train.shape[1:]


def federation(options):
    """The ``Federation`` that the options describe; the same for the same options, wherever it is made."""
    seed, clients = options["seed"], options["clients"]
    dataset = catalog.make(catalog.DATASETS, options["dataset"], options["data_dir"])
    if options["train_samples"] > len(dataset.y_train):
        raise UserError(f"--train-samples {options['train_samples']}: {options['dataset']} has {len(dataset.y_train)}")
    order = stream(seed, Purpose.SPLIT).permutation(len(dataset.y_train))[: options["train_samples"] or None]
    held_back = round(options["validation"] * len(order))
    validation, pool = np.sort(order[:held_back]), np.sort(order[held_back:])
    partition = catalog.make(catalog.PARTITIONS, options["partition"])
    try:
        shards = partition(dataset.y_train[pool], clients, stream(seed, Purpose.PARTITION))
    except ValueError as error:
        raise UserError(f"--partition {options['partition']}: {error}") from error
    shards = [pool[shard] for shard in shards]
    noise = catalog.make(catalog.NOISES, options["noise"])
    labels, rates = apply(noise, [dataset.y_train[shard] for shard in shards], dataset.classes,
                          lambda client: stream(seed, Purpose.NOISE, client))
    offsets = np.concatenate([[0], np.cumsum([len(shard) for shard in shards])]).astype(np.int64)
    indices, labels = np.concatenate(shards), np.concatenate(labels)
    name = hashlib.sha256(digest(dataset).encode())
    for array in (validation, offsets, indices, labels):
        name.update(array)
    return Federation(dataset, validation, offsets, indices, labels, rates, name.hexdigest())


def population(fed_data):
    """What the run file records about every client, as ``{name: (array, unit, description)}``."""
    clients, classes = len(fed_data.sizes), fed_data.dataset.classes
    owner = np.repeat(np.arange(clients), fed_data.sizes)
    histogram = np.zeros((clients, classes), np.int64)
    np.add.at(histogram, (owner, fed_data.labels), 1)
    true = np.zeros((clients, classes), np.int64)
    np.add.at(true, (owner, fed_data.dataset.y_train[fed_data.indices]), 1)
    return {
        "samples": (fed_data.sizes, "1", "training samples"),
        "noise": (fed_data.noise, "1", "fraction of labels that are wrong, as injected"),
        "labels": (histogram, "1", "samples by label as the client sees them, noise included"),
        "true_labels": (true, "1", "samples by true label"),
    }


def shared_arrays(fed_data):
    """What every rank of a node shares."""
    return {"x_train": fed_data.dataset.x_train, "offsets": fed_data.offsets, "indices": fed_data.indices,
            "labels": fed_data.labels}


def without_pixels(fed_data):
    """The federation without the training pixels, which every node then has once, in its shared file."""
    x = fed_data.dataset.x_train
    return fed_data._replace(dataset=fed_data.dataset._replace(x_train=np.empty((0, *x.shape[1:]), x.dtype)))


def setup_message(fed_data, fed, options, state):
    """``(meta, arrays)`` from which a worker builds its parts; it also holds the mask of the last model message, so
    that a resumed run sends the same bytes as one never stopped."""
    dataset, layout = fed_data.dataset, fed.layout
    known, array = positions.encode(layout.numbers(state["sent"]).numpy(), layout.num_weights)
    return {"kind": "setup", "shape": list(fed_data.shape), "classes": dataset.classes, "mean": list(dataset.mean),
            "std": list(dataset.std), "options": options, "known": known}, {"known": array}


def with_usual_parts(options):
    """The options with the pruner and the contribution that the strategy is usually played with, where none is named."""
    strategy = catalog.make(catalog.STRATEGIES, options["strategy"])
    return options | {"pruner": options["pruner"] or strategy.pruner,
                      "contribution": options["contribution"] or strategy.contribution}


def server_parts(options, fed_data, device):
    """``(Fed, x)``: the server's parts, its transport still missing, and the initial model vector on the CPU."""
    network = model(options, fed_data.shape, fed_data.dataset.classes).to(device)
    layout, x, _ = bind(network)
    first = x.cpu().clone()
    test, validate = evaluators(fed_data, network, x, device)
    contribution = catalog.make(catalog.CONTRIBUTIONS, options["contribution"])
    fed = Fed(layout, catalog.make(catalog.STRATEGIES, options["strategy"]), catalog.make(catalog.PRUNERS, options["pruner"]),
              contribution, catalog.make(catalog.CODECS, options["codec"]), None, test, validate,
              torch.from_numpy(fed_data.sizes.astype(np.float64)), options["cohort"] or options["clients"],
              options["rounds"], options["seed"], uses(network, layout, fed_data.shape, device))
    return fed, first


def evaluators(fed_data, network, x, device):
    """``(test, validate)``; the second is None where the validation share is 0."""
    dataset = fed_data.dataset

    def on(pixels, labels):
        return evaluator(network, x, inputs(torch.from_numpy(pixels).to(device), dataset.mean, dataset.std),
                         torch.from_numpy(labels).to(device))

    test = on(dataset.x_test, dataset.y_test)
    if not len(fed_data.validation):
        return test, None
    return test, on(dataset.x_train[fed_data.validation], dataset.y_train[fed_data.validation])


def check(options, fed_data, fed):
    """Raise UserError for what cannot work on this federation, before any worker trains."""
    N, smallest = len(fed_data.sizes), int(fed_data.sizes.min())
    if not 1 <= fed.cohort <= N:
        raise UserError(f"--cohort must be between 1 and the {N} clients, got {fed.cohort}")
    if fed.contribution.validated and fed.validate is None:
        raise UserError(f"--contribution {options['contribution']} needs validation samples; give --validation 0.1, say")
    if smallest < 2 and fed.layout.buffers:
        raise UserError(f"a client holds {smallest} sample, which batch normalisation cannot train on: ask the "
                        "partition for min_size=2 or more, or take a model without batch normalisation")
