"""All parts of a run, each made from the options once.

Other packages get the parts by name, and read no spec. A worker makes its own parts (``of_worker``)
from the same options. In one process it shares those of rank 0, as they are pure functions.
"""

from functools import partial
from typing import Callable, NamedTuple

import torch

from fedmpi.build import kinds, natural
from fedmpi.build.usual import with_named
from fedmpi.catalog import ADAPTERS, CONTRIBUTIONS, DATASETS, KINDS, MODELS
from fedmpi.compute.several import Several
from fedmpi.core.errors import UserError
from fedmpi.core.parts import (Adapters, Codec, Devices, Features, Noise, Objective, Optimiser,
                               Pruner, Sampler, Schedule, Strategy, Timing, Weighting)
from fedmpi.core.rng import Purpose, torch_seed
from fedmpi.core.tensors import mode
from fedmpi.methods.datasets.dataset import Dataset
from fedmpi.plugins import fit
from fedmpi.build.labels import labels
from fedmpi.plugins.spec import make

# Kinds of parts that a worker makes by one spec each.
OF_WORKER = ("task", "strategy", "optimiser", "schedule", "pruner", "codec", "features")
# The same for rank 0, beside the strategy and the data.
REST = ("task", "adapters", "optimiser", "schedule", "pruner", "weighting",
        "codec", "sampler", "devices", "timing")


class Parts(NamedTuple):
    """The parts of a run; None for a part that was not made."""

    dataset: Dataset | None = None
    partition: Callable | None = None
    noise: Noise | None = None
    features: Features | None = None
    # Each a Fault, in the order of the options.
    faults: tuple = ()
    # (shape, outputs) -> nn.Module, initialised from the seed.
    network: Callable | None = None
    adapters: Adapters | None = None
    task: Objective | None = None
    strategy: Strategy | None = None
    optimiser: Optimiser | None = None
    schedule: Schedule | None = None
    # Each an Augmentation; they are applied one after the other.
    augmentations: tuple = ()
    pruner: Pruner | None = None
    # {label: Contribution}: first the estimator whose scores give weights, then the observing ones.
    contributions: dict = {}
    weighting: Weighting | None = None
    codec: Codec | None = None
    sampler: Sampler | None = None
    devices: Devices | None = None
    timing: Timing | None = None

    @property
    def weigher(self):
        """The estimator of contributions whose scores give the clients' weights."""
        estimators = self.contributions.values()
        return next(iter(estimators))


def made(options, dataset=None):
    """``(options, Parts)`` of rank 0: all parts, and the options that follow from them.

    Without ``dataset`` the data set is loaded. UserError for a part's option, DataError without
    data.
    """
    # These two come first: the usual parts of all other kinds follow from them.
    strategy = _made("strategy", options)
    contribution = options["contribution"] or strategy.contribution
    weigher = make(CONTRIBUTIONS, contribution)
    options = with_named(options, strategy, weigher)
    methods = {kind: _made(kind, options) for kind in REST}
    options, data = of_data(options, dataset)
    network = network_of(options, strategy)
    return options, data._replace(
        network=network,
        strategy=strategy,
        augmentations=_several("augment", options),
        contributions=_estimators(options, weigher),
        **methods)


def of_data(options, dataset=None):
    """``(options, Parts)``: the data set, its partition, noise, skew and faults.

    The options have a partition and a number of clients afterwards.
    """
    if dataset is None:
        dataset = make(DATASETS, options["dataset"], options["data_dir"])
    has_classes = dataset.classes > 0
    client = natural.client_of(dataset)
    options = options | {"partition": natural.partition_of(options, client, has_classes)}
    partition = _made("partition", options)
    options = natural.with_clients(options, partition, client, dataset.client_names)
    return options, Parts(
        dataset=dataset,
        partition=partition,
        noise=_made("noise", options),
        features=_made("features", options),
        faults=_several("fault", options))


def of_worker(options):
    """The ``Parts`` of a worker; every option must be decided."""
    weigher = make(CONTRIBUTIONS, options["contribution"])
    own = {kind: _made(kind, options) for kind in OF_WORKER}
    return Parts(
        faults=_several("fault", options),
        network=network_of(options, own["strategy"]),
        augmentations=_several("augment", options),
        contributions=_estimators(options, weigher),
        **own)


def network_of(options, strategy=None):
    """``network(shape, outputs)``: it makes the model of the options, or a ``Several`` of all their
    models.

    ``strategy`` says from which layer a network of the server's own takes its inputs; by default
    the options' one.
    """
    specs = kinds.specs(options)
    server = options.get("server_model")
    # Early run files have no adapters.
    adapters = options.get("adapters", "none")
    has_one = len(specs) == 1 and not server
    if adapters == "none" and has_one:
        return partial(_network, "--model", options["model"], options["seed"])
    strategy = strategy or _made("strategy", options)
    if has_one:
        base = strategy.absorb is not None
        return partial(_adapted, options["model"], adapters, base, options["seed"])
    if adapters != "none":
        raise UserError(f"--adapters {adapters} goes with one network; leave --also-model and "
                        "--server-model out")
    return partial(_networks, specs, server, strategy.features, options["seed"])


def _adapted(model, spec, base, seed, shape, outputs):
    """The network ``model`` with adapters, by their ``spec``; ``base``: merges change it."""
    network = _network("--model", model, seed, shape, outputs)
    adapters = make(ADAPTERS, spec)
    if adapters.attach is None:
        return network
    # Beside the key of the model itself, whose values stay the same.
    gen = torch.Generator().manual_seed(torch_seed(seed, Purpose.MODEL, 1))
    try:
        return adapters.attach(network, gen, base)
    except ValueError as error:
        raise UserError(f"--adapters {spec}: {error}") from error


def _made(kind, options):
    return make(KINDS[kind], options[kind])


def _several(kind, options):
    """The parts of a kind that may be given more than once."""
    return tuple(make(KINDS[kind], spec) for spec in options[kind])


def _estimators(options, weigher):
    """``{label: Contribution}``: the ``weigher``, and the observing estimators."""
    specs = [options["contribution"], *options["observe"]]
    estimators = [weigher]
    for spec in options["observe"]:
        estimator = make(CONTRIBUTIONS, spec)
        estimators.append(estimator)
    return dict(zip(labels(specs), estimators))


def _networks(specs, server, features, seed, shape, outputs):
    """A ``Several`` of the networks of these specs. Each has the initial values it has alone."""
    made = {}
    for name, (spec, option) in zip(labels(specs), specs.items()):
        made[name] = _network(option, spec, seed, shape, outputs)
    try:
        # A spec's name may be one that the module needs for itself.
        clients = Several(made)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not server:
        return clients
    if features is None:
        raise UserError(f"--server-model {server} has no effect: with this strategy the server has "
                        "no network of its own; leave it out, or take --strategy fedgkt, say")
    shape_of_features = _shape_of_features(features, made, specs, shape)
    of_server = _network("--server-model", server, seed, shape_of_features, outputs)
    return Several(made, of_server, features)


def _shape_of_features(features, networks, specs, shape):
    """The shape of a sample's features; UserError unless it is the same for all ``networks``."""
    zeros = torch.zeros(1, *shape)
    shapes = {}
    modules = networks.values()
    for network, (spec, option) in zip(modules, specs.items()):
        named = f"{option} {spec}"
        try:
            with torch.no_grad(), mode(network, training=False):
                of_sample = features(network, zeros)
        except ValueError as error:
            raise UserError(f"{named}: {error}") from error
        own_shape = of_sample.shape[1:]
        shapes[named] = tuple(own_shape)
    first, *others = shapes.values()
    if any(other != first for other in others):
        differences = ", ".join(f"{named} gives {shape}" for named, shape in shapes.items())
        raise UserError(f"--server-model takes features of one shape, and {differences}; take "
                        "networks, or a place to cut them, of which all give the same")
    return first


def _network(option, spec, seed, shape, outputs):
    """The network, initialised from the seed; UserError if these inputs do not fit its factory."""
    own_seed = torch_seed(seed, Purpose.MODEL)
    # Factories draw from torch's own generator.
    torch.manual_seed(own_seed)
    option = f"{option} {spec}"
    shape = tuple(shape)
    try:
        network = make(MODELS, spec, shape, outputs)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{option} on inputs of shape {shape}: {error}") from error
    return fit.network(network, option, shape)
