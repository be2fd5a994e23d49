"""One client's local training on the rank's resident model."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client import home as homes
from fedmpi.client import samples as shards
from fedmpi.client.own_values import LAST_RECEIVED, OWN_VALUES, own_values
from fedmpi.client.received import Received
from fedmpi.compute import divided
from fedmpi.compute.sgd import length_of, train
from fedmpi.core.parts import Descent, Field, Round, Task
from fedmpi.core.rng import Purpose, stream_and_torch_seed
from fedmpi.core.support import scattered
from fedmpi.methods.datasets.stream import in_order
from fedmpi.wire import fields

# Names in a client's state, beside those of its strategy: its personal tensors, and the part of its
# updates that encoding has lost so far.
OWN = "_personal"
RESIDUAL = "_residual"
# How the names of its optimiser's tensors begin, if training resumes.
INNER = "_optimiser_"


class Prepared(NamedTuple):
    """A client that is about to train in the model of ``home``."""

    home: homes.Home
    task: Task
    received: Received
    last_mask: np.ndarray         # (Q,) bool: the client's mask, as far as the server knows it
    reports: dict                 # {path on the wire: array} for estimators of contributions
    residual: torch.Tensor | None = None      # (K,) float32: see RESIDUAL


def key_of(t, client, number):
    """The key of a training's random numbers: by its round, or by the ``number`` of its start."""
    if number is None:
        return t, client
    # 1: no key of a round is one of a start.
    return number, client, 1


def seed(device, value):
    """Seed torch's generators of the CPU and of ``device``."""
    # torch.manual_seed would seed every kind of device: that costs a client a millisecond, and
    # memory for a stack trace a call for each kind not in use.
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)


def prepared(parts, home, samples, job, arrays, received, last_mask, message):
    """The ``Prepared`` client of a ``job``.

    ``arrays`` hold the client's state, and the strategy's message to it alone; ``message`` is the
    message to all clients, ``{name: tensor}`` on the device.
    """
    support = received.support
    kept = _kept(arrays)
    residual = kept.pop(RESIDUAL, None)
    inner = _inner(parts, home, kept, support)
    base, own = received.base, None
    if parts.strategy.travels is not None:
        own = own_values(home, parts.strategy, received, job["t"], kept)
        base = own.base
    if home.layout.personal:
        personal = kept.pop(OWN, None)
        base = with_own(home, received, personal)
    # The rest of the state is the strategy's.
    kept = spread(home, parts.strategy.keeps, kept, support)
    message = message | _message_alone(parts, home, job, arrays, support)
    task = task_of(parts, home, samples, job, received, base, message, kept)
    task = task._replace(inner=inner)
    if own is not None:
        task.x.copy_(own.x)
        task = task._replace(came=own.came)
    reports = _reports(parts, task)
    if parts.pruner.probe is not None:
        probe = parts.pruner.probe(task)
        task = task._replace(probe=probe)
    return Prepared(home, task, received, last_mask, reports, residual)


def _kept(arrays):
    """``{name: tensor}``: the client's state, from the arrays of its job."""
    kept = {}
    for path, array in arrays.items():
        kind, _, name = path.partition("/")
        if kind == "kept":
            kept[name] = torch.from_numpy(array)
    return kept


def inner_fields(strategy, optimiser):
    """``{name: Field}`` of the optimiser's state that a client keeps; empty unless it resumes."""
    local = strategy.local
    if not (isinstance(local, Descent) and local.resumes):
        return {}
    fields_of = {}
    for name, tensor in optimiser.init(torch.zeros(1)).items():
        # A value a weight, or a count.
        fields_of[INNER + name] = Field() if tensor.ndim else Field(on=())
    return fields_of


def is_for_training(name):
    """Whether a value of a client's state serves its trainings alone, and no test of its model."""
    return name in (RESIDUAL, OWN_VALUES, LAST_RECEIVED) or name.startswith(INNER)


def _inner(parts, home, kept, support):
    """``Task.inner``: the optimiser's state, taken out of the client's state ``kept``."""
    fields_of = inner_fields(parts.strategy, parts.optimiser)
    own = {name: kept.pop(name) for name in fields_of if name in kept}
    inner = {}
    for name, tensor in spread(home, fields_of, own, support).items():
        if tensor.ndim:
            tensor = tensor[: home.layout.R]
        inner[name.removeprefix(INNER)] = tensor
    return inner


def _message_alone(parts, home, job, arrays, support):
    """``{name: tensor}`` on the device: the strategy's message to this client alone."""
    names = job.get("given", ())
    if not names:
        return {}
    sent = {name: parts.strategy.sends[name] for name in names}
    tensors = fields.decoded(sent, arrays, "given/", parts.codec.down, len(support))
    return spread(home, sent, tensors, support)


def _reports(parts, task):
    """``{path on the wire: array}``: the client's reports to estimators of contributions."""
    arrays = {}
    for label, report in parts.reports.items():
        for name, array in report(task).items():
            arrays[f"score/{label}/{name}"] = array
    return arrays


def spread(home, fields_of, tensors, support):
    """``{name: tensor}`` on the device; fields on the ``support (K,)`` become vectors (P,).

    ``fields_of`` holds the ``Field`` of each of ``tensors``, and perhaps others.
    """
    on_device = {}
    for name, tensor in tensors.items():
        # A whole vector is one already.
        is_part = len(support) < home.layout.P
        if fields_of[name].on == "support" and is_part:
            zeros = torch.zeros(home.layout.P)
            tensor = scattered(tensor, support, zeros)
        on_device[name] = tensor.to(home.device)
    return on_device


def with_own(home, received, personal):
    """(P,): the received model with the client's ``personal`` tensors.

    Before a client's first round ``personal`` is None: it has the tensors of the first model.
    """
    base = received.base.clone()
    positions = home.layout.personal_positions
    if personal is None:
        personal = home.initial[positions]
    positions = positions.to(home.device)
    base[positions] = personal.to(home.device)
    # Personal weights are pruned by the common mask, too.
    base[: home.layout.Q] *= received.device_mask
    return base


def task_of(parts, home, samples, job, received, base, message=None, kept=None):
    """The ``Task`` of a client, or of a shard of the server's, in the round of its job.

    The model is at ``base (P,)``. ``message`` and ``kept`` are the task's.
    """
    t, client = job["t"], job["client"]
    key = key_of(t, client, job.get("number"))
    home.x.copy_(base)
    homes.fresh_counters(home)
    mask, trainable = received.device_mask, received.trainable
    if parts.pruner.probe is not None:
        # A probe may change them.
        mask, trainable = mask.clone(), trainable.clone()
    stretch = shards.stretch(samples, client)
    if stretch is None:
        inputs, labels = shards.of_client(samples, client)
    else:
        inputs, labels = in_order(stretch, samples.window)
    gen, torch_seed = stream_and_torch_seed(parts.seed, Purpose.TRAIN, *key)
    seed(home.device, torch_seed)
    task = Task(
        model=home.model,
        layout=home.layout,
        x=home.x,
        g=home.g,
        base=base,
        mask=mask,
        trainable=trainable,
        inputs=inputs,
        labels=labels,
        epochs=parts.epochs,
        batch_size=parts.batch_size,
        lr=parts.lr,
        gen=gen,
        now=Round(t, parts.rounds),
        casting=home.casting,
        recorder=home.recorder,
        spare=home.spare,
        message=message or {},
        kept=kept or {},
        optimiser=parts.optimiser,
        rates=parts.rates,
        clip_norm=parts.clip_norm,
        accumulate=parts.accumulate,
        kernels=parts.kernels,
        steps=parts.steps,
        augment=parts.augment,
        objective=parts.objective,
        classes=samples.classes,
        stretch=stretch)
    if parts.steps:
        # The number of epochs follows from the steps and the client's samples.
        epochs = length_of(task)[0]
        return task._replace(epochs=epochs)
    return task


def trained(parts, samples, task, client, previous, group=None):
    """The ``Trained`` of a task: the strategy's local training, bent by the client's faults.

    ``previous (P,)`` is the model of the round before, for faults that replay it. All ranks of the
    ``group``, if there is one, train the client together.
    """
    training = partial(train, parts.strategy.local, task)
    if group is not None:
        training = partial(divided.train, parts.strategy.local, task, group)
    for fault in shards.faults_of(samples, client):
        if fault.local is not None:
            training = partial(fault.local, task, training, previous)
    return training()
