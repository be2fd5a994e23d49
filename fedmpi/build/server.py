"""The server's parts: what a round is played with."""

import math

import numpy as np
import torch

from fedmpi.build import held_out, kinds, server_data, smaller
from fedmpi.build.network import sample
from fedmpi.compute.derivatives import derivatives
from fedmpi.compute.evaluate import evaluator
from fedmpi.compute.forward import MODELS
from fedmpi.compute.sgd import length
from fedmpi.methods.codecs.values import fitted
from fedmpi.methods.datasets.dataset import inputs, laid
from fedmpi.server.loop import Fed

MODEL_VALUES = 1 << 24      # of the coalition models that one job forms: 64 MiB


def server_parts(options, parts, data, network, device):
    """The ``Fed`` of a run, its transport still missing; the server evaluates on ``device``."""
    layout = network.layout
    two = sample(data, 2).to(device)
    several = kinds.kinds(options, network.model, layout, two[:1], len(data.sizes))
    trained = parts.aggregation.buffer or options["cohort"] or options["clients"]
    test, validate, slopes = evaluators(data, network.model, layout, network.x, device, parts.task, several)
    sums = adds_up(parts) and several is None
    wants_updates = any(part.updates for part in parts.contributions.values())
    return Fed(
        layout=layout,
        objective=parts.task,
        strategy=parts.strategy,
        pruner=parts.pruner,
        contributions=parts.contributions,
        weighting=parts.weighting,
        codec=fitted(parts.codec, len(layout.tail)),
        sampler=parts.sampler,
        devices=parts.devices,
        aggregation=parts.aggregation,
        transport=None,
        test=test,
        validate=validate,
        derivatives=slopes,
        block=block(layout.P),
        stale=any(fault.stale for fault in parts.faults),
        sizes=torch.from_numpy(data.sizes.astype(np.float64)),
        cohort=options["cohort"] or options["clients"],
        rounds=options["rounds"],
        seed=options["seed"],
        costs=network.costs,
        fixed=network.fixed,
        batch_norm=network.batch_norm,
        server=server_data.holdings(options, parts.strategy, data),
        least=least(options, parts, data, network.batch_norm),
        sums=sums,
        values=wants_updates or not sums,
        on_error=options["on_error"],
        every=options["evaluate_every"],
        quorum=options["quorum"],
        together=options["together"],
        lr=_first_rate(options, parts.schedule, data),
        structure=smaller.structure(options, parts.pruner, network.model, layout, network.x, two),
        kinds=several,
        own_network=kinds.own_network(options, parts, network.model, several, device),
        own_tests=held_out.own_tests(options, data, trained, network.model, two[:1]))


def _first_rate(options, schedule, data):
    """``lr(now: Round)``: the learning rate of a client's first step."""
    steps = int(lengths(options, data)[1].max())

    def lr(now):
        return options["lr"] * schedule.rate(now, 0, steps)

    return lr


def block(P):
    """Coalition models of P values that one job evaluates."""
    return max(1, min(MODELS, MODEL_VALUES // P))


def adds_up(parts):
    """Whether workers may add up the updates of their clients: the merge is a weighted mean, its weights are known
    before training, all train the same mask, and all answers are waited for. It follows from how updates are merged,
    not from the ranks or from who observes, and so do the bits."""
    pruner, aggregation = parts.pruner, parts.aggregation
    one_mask = pruner.masks is None and pruner.units is None and not pruner.moves
    if aggregation.buffer or aggregation.over or aggregation.deadline < math.inf:
        return False
    return parts.strategy.additive and parts.weighting.fixed and one_mask


def least(options, parts, data, normalises=False):
    """float64 (N,): how many samples each client's training sees at least; 0 where a fault may cut it short.
    ``normalises``: whether the model normalises over batches."""
    bent = np.zeros(len(data.sizes), bool)
    for fault, who in zip(parts.faults, data.faults):
        if fault.local is not None:
            bent |= who
    samples = lengths(options, data, normalises)[2]
    return torch.from_numpy(np.where(bent, 0.0, samples))


def lengths(options, data, normalises=False):
    """int64 (3, N): epochs, the last perhaps cut short, steps and samples of each client's training in a round;
    ``normalises``: whether the model normalises over batches."""
    limits = options["batch_size"], options["local_epochs"], options["local_steps"]
    of_size = {n: length(n, *limits, normalises) for n in np.unique(data.sizes).tolist()}
    return np.array([of_size[n] for n in data.sizes.tolist()]).T


def evaluators(data, model, layout, x, device, objective, several=None):
    """``(test, validate, derivatives)``; the last two are None where the validation share is 0."""
    dataset, kept = data.dataset, data.validation

    def on_device(pixels, labels):
        raw = torch.from_numpy(pixels).to(device)
        samples = laid(inputs(raw, dataset.mean, dataset.std))
        return samples, torch.from_numpy(labels).to(device)

    def evaluator_on(samples):
        if several is None:
            return evaluator(model, x, *samples, objective)
        each = [evaluator(network, x, *samples, objective) for network in model.of_clients]
        return kinds.evaluator(each, several)

    test = evaluator_on(on_device(dataset.x_test, dataset.y_test))
    if not len(kept):
        return test, None, None
    own = on_device(dataset.x_train[kept], dataset.y_train[kept])
    validate = evaluator_on(own)
    if several is not None:
        return test, validate, None
    return test, validate, derivatives(model, layout, x, *own, objective.loss)
