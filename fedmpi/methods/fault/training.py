"""Shared by all kinds of faulty clients: the choice of the clients, and their training.

A faulty client copies, poisons, takes without giving, or overstates its update. A kind is a
factory of a ``Fault``; its hooks change the data, labels or updates of faulty clients, and
leave all other clients alone. A hook may be None.
"""

import numpy as np
import torch

from fedmpi.methods.noise.corrupt import shared_rates


def drawn(share):
    """``who``: round(share * clients) clients at random."""
    rates = shared_rates(1.0, share)

    def who(clients, gen):
        return rates(clients, gen) > 0

    return who


def trained_entries(task):
    """(R,) float32, 1 on the trained entries of ``task.x``: alive, and no padding."""
    # False on the padding between tensors.
    real = task.layout.real[: task.layout.R]
    return task.trainable * real.to(task.trainable.device)


def set_update(task, update):
    """Make ``task.x`` the received model plus ``update (R,)`` on the trained entries.

    Buffers are as received.
    """
    task.x.copy_(task.base)
    trained = task.x[: task.layout.R]
    trained += update * trained_entries(task)


def stretched(task, train, factor):
    """The ``Trained`` of honest training; its update is then multiplied by ``factor`` in place.

    Buffers stay as trained.
    """
    trained = train()
    R = task.layout.R
    base = task.base[:R]
    update = task.x[:R] - base
    task.x[:R] = (base + factor * update) * trained_entries(task)
    return trained


@torch.no_grad()
def received_loss(task):
    """The mean loss of ``task.x`` on the client's samples, untrained.

    Batch statistics are left as they were. A strategy with a loss of its own reports its own
    loss for honest clients.
    """
    # Evaluation mode: a free-rider must not move running averages.
    task.model.eval()
    total = 0
    batches = zip(task.inputs.split(task.batch_size), task.labels.split(task.batch_size))
    for inputs, labels in batches:
        outputs = task.model(inputs)
        total += task.objective.loss(outputs, labels, reduction="sum")
    # A client may have no sample.
    return float(total) / max(len(task.labels), 1)


def non_negative(**options):
    """Raise ``ValueError`` for the first option that is not a finite number >= 0."""
    for name, value in options.items():
        if not (value >= 0 and np.isfinite(value)):
            raise ValueError(f"{name} must be >= 0 and finite, got {value}")
