"""All parts of a run, each made from the options once.

Whoever needs a part gets it by name: below ``fedmpi.build`` nobody reads a spec. A worker makes its own
(``of_worker``), from the same options; in one process it shares those of rank 0, which are pure functions.
"""

from functools import partial
from typing import Callable, NamedTuple

import torch

from fedmpi.build import natural
from fedmpi.build.usual import with_named
from fedmpi.catalog import CONTRIBUTIONS, DATASETS, KINDS, MODELS
from fedmpi.core.errors import UserError
from fedmpi.core.parts import (Aggregation, Codec, Devices, Features, Noise, Objective, Optimiser, Pruner,
                               Sampler, Schedule, Strategy, Weighting)
from fedmpi.core.rng import Purpose, torch_seed
from fedmpi.methods.datasets.dataset import Dataset
from fedmpi.plugins import fit
from fedmpi.plugins.spec import make, split

# What a worker trains with, and what it is not alone in needing.
OF_WORKER = ("task", "strategy", "optimiser", "schedule", "pruner", "codec", "features")
REST = ("task", "optimiser", "schedule", "pruner", "weighting", "codec", "sampler", "devices", "aggregation")


class Parts(NamedTuple):
    """The parts of a run; None are those that were not asked for."""

    dataset: Dataset | None = None
    partition: Callable | None = None
    noise: Noise | None = None
    features: Features | None = None
    faults: tuple = ()                # of Fault, as the options name them
    network: Callable | None = None   # (shape, outputs) -> nn.Module, initialised from the seed
    task: Objective | None = None
    strategy: Strategy | None = None
    optimiser: Optimiser | None = None
    schedule: Schedule | None = None
    augmentations: tuple = ()         # of Augmentation, one after the other
    pruner: Pruner | None = None
    contributions: dict = {}          # {label: Contribution}: the one that weighs, then those that only observe
    weighting: Weighting | None = None
    codec: Codec | None = None
    sampler: Sampler | None = None
    devices: Devices | None = None
    aggregation: Aggregation | None = None

    @property
    def weigher(self):
        """The estimator of contributions that weighs."""
        return next(iter(self.contributions.values()))


def made(options, dataset=None):
    """``(options, Parts)`` of rank 0: all parts, and in the options what nobody named and they decide.

    The data set is loaded, unless it is given. UserError for an option of a part, DataError without data.
    """
    strategy = _made("strategy", options)
    weigher = make(CONTRIBUTIONS, options["contribution"] or strategy.contribution)
    options = with_named(options, strategy, weigher)
    methods = {kind: _made(kind, options) for kind in REST}
    options, data = of_data(options, dataset)
    return options, data._replace(
        network=network_of(options),
        strategy=strategy,
        augmentations=_several("augment", options),
        contributions=_estimators(options, weigher),
        **methods)


def of_data(options, dataset=None):
    """``(options, Parts)``: the data set and what is done to it; the options have a partition and a number of
    clients."""
    if dataset is None:
        dataset = make(DATASETS, options["dataset"], options["data_dir"])
    has_classes = dataset.classes > 0
    options = options | {"partition": natural.partition_of(options, dataset.client, has_classes)}
    partition = _made("partition", options)
    options = natural.with_clients(options, partition, dataset.client, dataset.client_names)
    return options, Parts(
        dataset=dataset,
        partition=partition,
        noise=_made("noise", options),
        features=_made("features", options),
        faults=_several("fault", options))


def of_worker(options):
    """The ``Parts`` of a worker, from options in which all is decided."""
    weigher = make(CONTRIBUTIONS, options["contribution"])
    own = {kind: _made(kind, options) for kind in OF_WORKER}
    return Parts(
        faults=_several("fault", options),
        network=network_of(options),
        augmentations=_several("augment", options),
        contributions=_estimators(options, weigher),
        **own)


def network_of(options):
    """``network(shape, outputs)``, which makes the model of the options."""
    return partial(_network, options["model"], options["seed"])


def _made(kind, options):
    return make(KINDS[kind], options[kind])


def _several(kind, options):
    """The parts of a kind that may be given more than once."""
    return tuple(make(KINDS[kind], spec) for spec in options[kind])


def _estimators(options, weigher):
    """``{label: Contribution}``: the one that weighs, which is made already, and those that observe."""
    observing = [make(CONTRIBUTIONS, spec) for spec in options["observe"]]
    specs = [options["contribution"], *options["observe"]]
    return dict(zip(labels(specs), [weigher, *observing]))


def labels(specs):
    """What the estimators of these specs are called: their names, numbered where one comes again."""
    found = []
    for spec in specs:
        name = label = split(spec)[0].rpartition(":")[2]
        number = 1
        while label in found:
            number += 1
            label = f"{name}-{number}"
        found.append(label)
    return found


def _network(spec, seed, shape, outputs):
    """The network, initialised from the seed; UserError where its factory does not take these inputs."""
    torch.manual_seed(torch_seed(seed, Purpose.MODEL))
    option, shape = f"--model {spec}", tuple(shape)
    try:
        network = make(MODELS, spec, shape, outputs)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{option} on inputs of shape {shape}: {error}") from error
    return fit.network(network, option, shape)
