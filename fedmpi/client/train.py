"""One client's local training on the rank's resident model."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client import home as homes
from fedmpi.client import samples as shards
from fedmpi.client.received import Received
from fedmpi.compute.sgd import length_of, train
from fedmpi.core.parts import Round, Task
from fedmpi.core.rng import Purpose, stream, torch_seed
from fedmpi.core.support import scattered
from fedmpi.wire import fields

OWN = "_personal"         # what a client keeps of the personal tensors, beside what its strategy keeps
RESIDUAL = "_residual"    # and of what encoding its updates has lost


class Prepared(NamedTuple):
    """A client that is about to train in the model of ``home``."""

    home: homes.Home
    task: Task
    received: Received
    known: np.ndarray             # (Q,) bool: the mask that the server knows the client by
    reports: dict                 # arrays that estimators of contributions want to know, by name on the wire
    residual: torch.Tensor | None = None      # (K,) float32: what encoding its earlier updates has lost


def key_of(t, client, number):
    """What a training's random numbers follow from: the round, or the ``number`` of its start."""
    return (t, client) if number is None else (number, client, 1)


def seed(device, value):
    """Seed torch's generators of the CPU and of ``device``."""
    # torch.manual_seed does so for every kind of device that there is, which costs a client a millisecond, and keeps a
    # stack trace a call where the kind is not in use.
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)


def prepared(parts, home, samples, job, arrays, received, known, given):
    """The ``Prepared`` client of a ``job``, with its ``arrays``; ``given`` is what the strategy sent to all, (P,) on
    the device of what is on the support."""
    support = received.support
    kept = {name.removeprefix("kept/"): torch.from_numpy(array)
            for name, array in arrays.items() if name.startswith("kept/")}
    residual = kept.pop(RESIDUAL, None)
    base = received.base
    if home.layout.personal:
        base = with_own(home, received, kept.pop(OWN, None))
    strategy = parts.strategy
    sent_to = {name: strategy.sends[name] for name in job.get("given", ())}
    own = fields.decoded(sent_to, arrays, "given/", parts.codec.down, len(support))
    given = given | spread(home, sent_to, own, support)
    kept = spread(home, strategy.keeps, kept, support)
    task = task_of(parts, home, samples, job, received, base, given, kept)
    reports = {f"score/{label}/{name}": array
               for label, report in parts.reports.items() for name, array in report(task).items()}
    if parts.pruner.probe is not None:
        task = task._replace(probe=parts.pruner.probe(task))
    return Prepared(home, task, received, known, reports, residual)


def spread(home, fields_of, tensors, support):
    """``{name: tensor}`` on the device: a vector (P,) of what a field has on the ``support (K,)``. ``fields_of`` holds
    the ``Field`` of each of ``tensors``, and perhaps others."""
    on_device = {}
    for name, tensor in tensors.items():
        if fields_of[name].on == "support":
            tensor = scattered(tensor, support, torch.zeros(home.layout.P))
        on_device[name] = tensor.to(home.device)
    return on_device


def with_own(home, received, own):
    """(P,): the received model with the client's personal tensors, those of the factory's model before its first
    round."""
    base, positions = received.base.clone(), home.layout.own
    values = home.initial[positions] if own is None else own
    base[positions.to(home.device)] = values.to(home.device)
    # Personal weights are pruned by the common mask, too.
    base[: home.layout.Q] *= received.there
    return base


def task_of(parts, home, samples, job, received, base, given={}, kept={}):
    """The ``Task`` of a client, or of a shard of the server's, in the round of its job; its random numbers follow from
    the round, or from the number of its start. ``given`` and ``kept`` are the task's."""
    t, client = job["t"], job["client"]
    key = key_of(t, client, job.get("number"))
    home.x.copy_(base)
    homes.fresh_counters(home)
    mask, live = received.there, received.live
    if parts.pruner.probe is not None:
        # A probe may change them.
        mask, live = mask.clone(), live.clone()
    inputs, labels = shards.of_client(samples, client)
    seed(home.device, torch_seed(parts.seed, Purpose.TRAIN, *key))
    task = Task(home.model, home.layout, home.x, home.g, base, mask, live, inputs, labels, parts.epochs,
                parts.batch_size, parts.lr, stream(parts.seed, Purpose.TRAIN, *key), Round(t, parts.rounds),
                casting=home.casting, recorder=home.recorder, given=given, kept=kept, optimiser=parts.optimiser,
                rates=parts.rates,
                clip_norm=parts.clip_norm, steps=parts.steps, augment=parts.augment,
                objective=parts.objective, classes=samples.classes)
    return task._replace(epochs=length_of(task)[0]) if parts.steps else task


def trained(parts, samples, task, client, previous):
    """The ``Trained`` of a task: local training as the strategy does it, and as the client's faults bend it. ``previous
    (P,)`` is the model of the round before, for faults that want it."""
    training = partial(train, parts.strategy.local, task)
    for fault, has_it in shards.faults_of(samples, client):
        if has_it and fault.local is not None:
            training = partial(fault.local, task, training, previous)
    return training()
