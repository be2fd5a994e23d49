"""All parts of a run, each made from the options once.

Whoever needs a part gets it by name: below ``fedmpi.build`` nobody reads a spec. A worker makes its own
(``of_worker``), from the same options; in one process it shares those of rank 0, which are pure functions.
"""

from functools import partial
from typing import Callable, NamedTuple

import torch

from fedmpi.build import kinds, natural
from fedmpi.build.usual import with_named
from fedmpi.catalog import CONTRIBUTIONS, DATASETS, KINDS, MODELS
from fedmpi.compute.several import Several
from fedmpi.core.errors import UserError
from fedmpi.core.parts import (Aggregation, Codec, Devices, Features, Noise, Objective, Optimiser, Pruner,
                               Sampler, Schedule, Strategy, Weighting)
from fedmpi.core.rng import Purpose, torch_seed
from fedmpi.core.tensors import mode
from fedmpi.methods.datasets.dataset import Dataset
from fedmpi.plugins import fit
from fedmpi.build.labels import labels
from fedmpi.plugins.spec import make

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
        network=network_of(options, strategy),
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
        network=network_of(options, own["strategy"]),
        augmentations=_several("augment", options),
        contributions=_estimators(options, weigher),
        **own)


def network_of(options, strategy=None):
    """``network(shape, outputs)``, which makes the model of the options, or all of them as one ``Several``.

    ``strategy`` says what a network of the server's own takes; it is made where none is given."""
    specs = kinds.specs(options)
    server = options.get("server_model")
    if len(specs) == 1 and not server:
        return partial(_network, "--model", options["model"], options["seed"])
    strategy = strategy or _made("strategy", options)
    return partial(_networks, specs, server, strategy.features, options["seed"])


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


def _networks(specs, server, features, seed, shape, outputs):
    """A ``Several`` of the networks of these specs; each is initialised as if it were the only one."""
    made = {}
    for name, (spec, option) in zip(labels(specs), specs.items()):
        made[name] = _network(option, spec, seed, shape, outputs)
    try:
        clients = Several(made)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not server:
        return clients
    if features is None:
        raise UserError(f"--server-model {server} has no effect: with this strategy the server has no network of its "
                        "own; leave it out, or take --strategy fedgkt, say")
    of_server = _network("--server-model", server, seed, _shape_of_features(features, made, specs, shape), outputs)
    return Several(made, of_server, features)


def _shape_of_features(features, networks, specs, shape):
    """The shape of a sample's features, which all ``networks`` must share."""
    zeros = torch.zeros(1, *shape)
    shapes = {}
    for network, (spec, option) in zip(networks.values(), specs.items()):
        try:
            with torch.no_grad(), mode(network, training=False):
                shapes[f"{option} {spec}"] = tuple(features(network, zeros).shape[1:])
        except ValueError as error:
            raise UserError(f"{option} {spec}: {error}") from error
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{named} gives {found}" for named, found in shapes.items())
        raise UserError(f"--server-model takes features of one shape, and {told}; take networks, or a place to cut "
                        "them, of which all give the same")
    return next(iter(shapes.values()))


def _network(option, spec, seed, shape, outputs):
    """The network, initialised from the seed; UserError where its factory does not take these inputs."""
    torch.manual_seed(torch_seed(seed, Purpose.MODEL))
    option, shape = f"{option} {spec}", tuple(shape)
    try:
        network = make(MODELS, spec, shape, outputs)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{option} on inputs of shape {shape}: {error}") from error
    return fit.network(network, option, shape)
