"""Refusals of a run that cannot work, before any client trains."""

import torch

from fedmpi.build import groups, kernels, kinds, server_data, smaller
from fedmpi.build.facts import parts_with_facts
from fedmpi.build.federation import named
from fedmpi.build.network import sample
from fedmpi.build.server import min_samples_seen
from fedmpi.catalog import PRUNERS
from fedmpi.compute.several import networks_of
from fedmpi.compute.stacked_forward import refusal
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Descent
from fedmpi.core.rng import Purpose, stream
from fedmpi.core.words import plural
from fedmpi.methods.datasets.dataset import model_dtype
from fedmpi.plugins.spec import split
from fedmpi.server.fold import still

# Pruners that treat adapters as such.
OF_ADAPTERS = ("dense", "ranks")


def check(setup):
    """UserError if the run cannot work. Each part has rules of its own, ``refuses``; the others
    stand here."""
    options, parts, data, network, run, _ = setup
    N = len(data.sizes)
    if not 1 <= run.cohort <= N:
        raise UserError(
            f"--cohort must be between 1 and the {plural(N, 'client')}, got {run.cohort}")
    _check_classes(options, parts)
    _check_validation(parts, data)
    server_data.check(options, parts.strategy, len(data.server))
    smaller.check_run(options, parts, run)
    kinds.check_run(options, parts)
    groups.check(options, parts, network)
    for option, part, facts in parts_with_facts(options, parts, data, network.layout):
        for line in part.refuses(facts):
            raise UserError(f"{option}: {line}")
    _check_adapters(options, network.layout)
    if parts.strategy.fits is not None:
        _check_strategy_fits(options, parts.strategy, data, network)
    _check_accumulate(options, network)
    kernels.check(setup)
    if network.batch_norm:
        _check_batches(options, data)
    if options["together"] > 1:
        _check_together(options, parts, data, network)
    # Last, as parts may rely on all that was checked.
    _rehearse(setup)


def _check_adapters(options, layout):
    """UserError for a pruner that would cut adapters in place of the model beside them."""
    name, _ = split(options["pruner"])
    if layout.adapters and name in PRUNERS and name not in OF_ADAPTERS:
        raise UserError(f"--pruner {options['pruner']}: --adapters {options['adapters']} freezes "
                        "the model, and masks would cut adapters; take --pruner dense, or ranks")


def _check_strategy_fits(options, strategy, data, network):
    """UserError if the strategy does not go with one of the networks."""
    option = f"--strategy {options['strategy']}"
    one = sample(data).to(network.x.device)
    networks = networks_of(network.model)
    for model in networks:
        named(option, strategy.fits, model, one)


def _check_classes(options, parts):
    """UserError if a part needs classes, and the run's task has none."""
    if parts.task.classes:
        return
    specs = [options["contribution"], *options["observe"]]
    rows = [("strategy", options["strategy"], parts.strategy)]
    estimators = parts.contributions.values()
    for spec, part in zip(specs, estimators):
        rows.append(("contribution", spec, part))
    for kind, spec, part in rows:
        if part.classes:
            raise UserError(f"--{kind} {spec} is made for one class a sample, and --task "
                            f"{options['task']} has none; take another {kind}")


def _check_validation(parts, data):
    """UserError if an estimator needs validation samples, and there are none."""
    if len(data.validation):
        return
    estimators = parts.contributions.items()
    for label, part in estimators:
        if part.validated:
            raise UserError(f"{label} needs validation samples; give --validation 0.1, say")


def _check_accumulate(options, network):
    """UserError if batches cannot be cut in so many parts."""
    count = options["accumulate"]
    if count > options["batch_size"]:
        raise UserError(f"--accumulate {count}: a batch of {options['batch_size']} samples has at "
                        "most so many parts; take fewer, or a larger --batch-size")
    if count == 1:
        return
    if network.batch_norm:
        raise UserError(f"--accumulate {count}: batch normalisation would see a part of each batch "
                        "alone, which is another training; take a smaller --batch-size, or a model "
                        "without")
    if options["server_model"]:
        raise UserError(f"--accumulate {count} has no effect on the network of --server-model; "
                        "leave it out")


def _check_batches(options, data):
    """UserError if batch norm would get a batch of one sample: it has no variance."""
    fewest = data.sizes.min()
    smallest = int(fewest)
    kept = len(data.server)
    instead = "or take a model without batch normalisation"
    if options["batch_size"] < 2:
        raise UserError(f"--batch-size {options['batch_size']}: batch normalisation cannot train "
                        f"on batches of one sample: give 2 or more, {instead}")
    if smallest < 2:
        raise UserError(f"a client holds {smallest} sample, which batch normalisation cannot train "
                        f"on: ask the partition for min_size=2 or more, {instead}")
    if kept == 1:
        raise UserError(f"--strategy {options['strategy']} works with the server's {kept} sample, "
                        "on which batch normalisation cannot train: give a larger --server-data, "
                        f"{instead}")


def _check_together(options, parts, data, network):
    """UserError if --together asks for clients side by side, and none can be trained so."""
    why = apart(options, parts, data, network)
    if why:
        G = options["together"]
        raise UserError(f"--together {G} trains clients side by side, but {why}; take --together 1")


def apart(options, parts, data, network):
    """The reason against training clients side by side: half a line, empty if there is none."""
    local = parts.strategy.local
    if not isinstance(local, Descent) or local.arrives is not None:
        return f"--strategy {options['strategy']} has a way of training of its own"
    least_samples = min_samples_seen(options, parts, data)
    # 0 stands for a fault that trains in its own way.
    if not least_samples.any():
        return "all of them are at fault and train in ways of their own"
    cohort = options["cohort"] or options["clients"]
    at_work = parts.timing.concurrency or cohort
    if at_work == 1:
        return "only one is at work at a time"
    if options["ranks_per_client"] > 1:
        return "each of them trains on several ranks"
    has_units = parts.pruner.units is not None
    if has_units or kinds.several(options):
        return "they train networks of several kinds"
    if options["accumulate"] > 1:
        return "--accumulate cuts their batches in parts"
    if data.dataset.stream is not None:
        return "their samples are windows of a stream of tokens"
    two = sample(data, 2)
    why = refusal(network.model, network.layout, two)
    if not why:
        return ""
    return f"not those of --model {options['model']}: {why}"


def _rehearse(setup):
    """Try one merge, of updates of 0, and the feature skew of one sample: they may refuse the run's
    layout or data."""
    options, parts, data, network, run, _ = setup
    C = run.timing.buffer or run.cohort
    _rehearse_merge(options, parts.strategy, network, C)
    has_skew = data.features.any()
    if has_skew:
        _rehearse_features(options, parts.features, data)


def _rehearse_merge(options, strategy, network, C):
    """UserError if the strategy cannot merge the updates of C clients."""
    layout = network.layout
    option = f"--strategy {options['strategy']}"
    # No client has trained yet, and updates of 0 have the right shapes.
    unchanged = still(layout, strategy, C, options["clients"])
    share = 1 / C
    weights = torch.full((C,), share, dtype=torch.float64)
    state = strategy.init(layout)
    named(option, strategy.merge, state, network.first, unchanged, weights)


def _rehearse_features(options, features, data):
    """UserError if the feature skew cannot change one sample."""
    dataset = data.dataset
    option = f"--features {options['features']}"
    dtype = model_dtype(dataset)
    zeros = torch.zeros(1, *data.shape, dtype=dtype)
    label = torch.zeros(1, dtype=torch.int64)
    level = float(data.features.max())
    gen = stream(options["seed"], Purpose.FEATURES, 0)
    named(option, features.apply, zeros, label, level, dataset.classes, gen)
