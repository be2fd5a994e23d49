"""What a faulty client is: one that copies, poisons, takes without giving, or overstates what
it gives.

A kind is a factory that returns a ``Fault``; its hooks change what such clients hold, see or
send, and leave all others alone. A hook that the kind does not need is None.
"""

import numpy as np
import torch

from fedmpi.methods.noise.corrupt import shared_rates


def drawn(share):
    """``who``: round(share * clients) clients at random."""
    rates = shared_rates(1.0, share)
    return lambda clients, gen: rates(clients, gen) > 0


def trained_entries(task):
    """(R,) float32, 1 on the entries of ``task.x`` that training may move: alive, and not
    padding."""
    return task.live * task.layout.real[: task.layout.R].to(task.live.device)


def set_update(task, update):
    """Make ``task.x`` the received model plus ``update (R,)`` on the trained entries; buffers
    are as received."""
    R = task.layout.R
    task.x.copy_(task.base)
    task.x[:R] += update * trained_entries(task)


def stretched(task, train, factor):
    """The ``Trained`` of honest training whose update is then multiplied by ``factor``; buffers
    stay as trained."""
    trained, R = train(), task.layout.R
    base = task.base[:R]
    task.x[:R] = (base + factor * (task.x[:R] - base)) * trained_entries(task)
    return trained


@torch.no_grad()
def received_loss(task):
    """The mean loss of ``task.x`` on the client's samples, untrained; batch statistics are left
    as they were. A strategy that trains on another loss reports that one for honest clients."""
    task.model.eval()
    total = sum(task.objective.loss(task.model(inputs), labels, reduction="sum")
                for inputs, labels in zip(task.inputs.split(task.batch_size), task.labels.split(task.batch_size)))
    return float(total) / max(len(task.labels), 1)


def non_negative(**options):
    """Raise ``ValueError`` for the first option that is not a finite number >= 0."""
    for name, value in options.items():
        if not (value >= 0 and np.isfinite(value)):
            raise ValueError(f"{name} must be >= 0 and finite, got {value}")
