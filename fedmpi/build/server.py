"""The server's parts, with which it plays its rounds."""

import math

import numpy as np
import torch

from fedmpi.build import held_out, kinds, server_data, smaller
from fedmpi.build.network import sample
from fedmpi.client.train import inner_fields
from fedmpi.compute.derivatives import derivatives
from fedmpi.compute.evaluate import evaluator, with_derived
from fedmpi.compute.forward import MODELS
from fedmpi.compute.sgd import length
from fedmpi.wire.codecs import fitted
from fedmpi.methods.datasets.dataset import inputs, laid, of_test, of_training
from fedmpi.server.run_parts import RunParts

# Values of all coalition models of one job: 64 MiB of float32.
MODEL_VALUES = 1 << 24


def server_parts(options, parts, data, network, device):
    """The ``RunParts`` of a run, without its transport; the server evaluates on ``device``."""
    layout = network.layout
    two = sample(data, 2).to(device)
    several = kinds.kinds(options, network.model, layout, two[:1], len(data.sizes))
    cohort = options["cohort"] or options["clients"]
    trained = parts.timing.buffer or cohort
    test, validate, slopes = evaluators(
        data, network.model, layout, network.x, device, parts.task, several)
    # Networks of several kinds have no common sum.
    sums_on_workers = adds_up(parts) and several is None
    wants_updates = any(part.updates for part in parts.contributions.values())
    codec = fitted(parts.codec, layout.num_dense, layout.num_averages)
    inner = inner_fields(parts.strategy, parts.optimiser)
    needs_previous_model = any(fault.needs_previous_model for fault in parts.faults)
    sizes = data.sizes.astype(np.float64)
    holdings = server_data.holdings(options, parts.strategy, data)
    least_samples = min_samples_seen(options, parts, data, network.batch_norm)
    lr = _first_rate(options, parts.schedule, data)
    structure = smaller.structure(options, parts.pruner, network.model, layout, network.x, two)
    own_network = kinds.own_network(options, parts, network.model, several, device)
    return RunParts(
        layout=layout,
        objective=parts.task,
        strategy=parts.strategy,
        pruner=parts.pruner,
        contributions=parts.contributions,
        weighting=parts.weighting,
        codec=codec,
        sampler=parts.sampler,
        devices=parts.devices,
        timing=parts.timing,
        transport=None,
        test=test,
        validate=validate,
        derivatives=slopes,
        block=block(layout.P),
        needs_previous_model=needs_previous_model,
        sizes=torch.from_numpy(sizes),
        cohort=cohort,
        rounds=options["rounds"],
        seed=options["seed"],
        costs=network.costs,
        fixed=network.fixed,
        batch_norm=network.batch_norm,
        server=holdings,
        min_samples_seen=least_samples,
        sums_on_workers=sums_on_workers,
        wants_single_updates=wants_updates or not sums_on_workers,
        on_error=options["on_error"],
        evaluate_every=options["evaluate_every"],
        quorum=options["quorum"],
        together=options["together"],
        lr=lr,
        inner=inner,
        structure=structure,
        kinds=several,
        own_network=own_network,
        own_tests=held_out.own_tests(options, data, trained, network.model, two[:1]))


def _first_rate(options, schedule, data):
    """``lr(now: Round)``: the learning rate of a client's first step."""
    _, steps_of_clients, _ = lengths(options, data)
    most_steps = steps_of_clients.max()
    steps = int(most_steps)

    def lr(now):
        return options["lr"] * schedule.rate(now, 0, steps)

    return lr


def block(P):
    """The number of coalition models, of P values each, in one job."""
    fitting = min(MODELS, MODEL_VALUES // P)
    # A model of more than MODEL_VALUES weights has a job of its own.
    return max(1, fitting)


def adds_up(parts):
    """Whether workers may add up the updates of their clients.

    They may if the merge is a weighted mean over all clients, with weights known before training,
    if all clients train the same mask, and if the server waits for all answers. Ranks and observing
    estimators play no part, so that the bits do not depend on them.
    """
    pruner = parts.pruner
    timing = parts.timing
    # These merge before all answers are there, or without some.
    if timing.buffer or timing.over or timing.deadline < math.inf:
        return False
    # Clients' masks differ.
    if pruner.masks is not None or pruner.units is not None or pruner.moves:
        return False
    # The mean of each value is over other clients.
    if parts.codec.sent is not None:
        return False
    return parts.strategy.additive and parts.weighting.fixed


def min_samples_seen(options, parts, data, normalises=False):
    """float64 (N,): the least number of samples that each client's training sees in a round.

    It is 0 for a client with a fault that may cut training short. ``normalises``: the model has
    batch norm.
    """
    may_stop = np.zeros(len(data.sizes), bool)
    for fault, clients in zip(parts.faults, data.faults):
        # Such a fault trains in its own way, perhaps on nothing.
        if fault.local is not None:
            may_stop |= clients
    _, _, samples = lengths(options, data, normalises)
    least = np.where(may_stop, 0.0, samples)
    return torch.from_numpy(least)


def lengths(options, data, normalises=False):
    """int64 (3, N): epochs, steps and samples of each client's training in a round.

    The last epoch may be cut short. ``normalises``: the model has batch norm.
    """
    batch_size = options["batch_size"]
    epochs, steps = options["local_epochs"], options["local_steps"]
    drawn = data.dataset.stream is not None
    # Many clients have the same number of samples.
    of_size = {}
    for n in np.unique(data.sizes).tolist():
        of_size[n] = length(n, batch_size, epochs, steps, normalises, drawn)
    of_clients = [of_size[n] for n in data.sizes.tolist()]
    return np.array(of_clients).T


def evaluators(data, model, layout, x, device, objective, several=None):
    """``(test, validate, derivatives)``; the last two are None without validation samples."""
    dataset = data.dataset
    kept = data.validation

    def on_device(pixels, labels):
        raw = torch.from_numpy(pixels).to(device)
        samples = laid(inputs(raw, dataset.mean, dataset.std))
        return samples, torch.from_numpy(labels).to(device)

    def evaluator_on(samples):
        if several is None:
            return evaluator(model, x, *samples, objective)
        of_networks = [evaluator(network, x, *samples, objective) for network in model.of_clients]
        return kinds.evaluator(of_networks, several)

    training_bytes, test_bytes = (1.0, 1.0)
    if dataset.stream is not None:
        training_bytes, test_bytes = dataset.stream.token_bytes
    test_samples = on_device(*of_test(dataset))
    test = with_derived(objective, test_bytes, evaluator_on(test_samples))
    if not len(kept):
        return test, None, None
    own_samples = on_device(*of_training(dataset, kept))
    validate = with_derived(objective, training_bytes, evaluator_on(own_samples))
    # Derivatives of several networks are not implemented.
    if several is not None:
        return test, validate, None
    slopes = derivatives(model, layout, x, *own_samples, objective.loss)
    return test, validate, slopes
