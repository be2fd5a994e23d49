"""The network that only the server has, trained by rank 0 on what clients have sent."""

from typing import Any, Callable, NamedTuple

import torch

from fedmpi.client.train import seed
from fedmpi.compute.sgd import descend
from fedmpi.core.kinds import Kind, part, with_part
from fedmpi.core.parts import Descent, Optimiser, Round, Schedule, Task
from fedmpi.core.rng import Purpose, stream, torch_seed


class OwnNetwork(NamedTuple):
    """The server's network in a vector of its own, and how it is trained: as clients train theirs."""

    kind: Kind                    # where its values lie in the common vector
    model: torch.nn.Module
    x: torch.Tensor               # (P_k,) the model's own vector, on the server's device
    g: torch.Tensor               # (R_k,) its gradient
    casting: Callable
    optimiser: Optimiser
    rates: Schedule
    clip_norm: float
    settings: dict                # {"epochs": int, "batch_size": int, "lr": float} of the run


def fitted(own, now, run_seed, number, x, mask, samples, loss, settings):
    """``(x (P,), Trained)``: the common vector once the network has been trained on ``samples``.

    ``now`` is the Round, ``number`` how many trainings of this network came before in it. ``mask (Q,)``
    is the common one. ``settings`` take the place of the run's where they are not 0.
    """
    layout = own.kind.layout
    chosen = own.settings | {name: value for name, value in settings.items() if value}
    base = part(own.kind, x).to(own.x.device)
    own.x.copy_(base)
    kept = mask[own.kind.weights].to(own.x.device)
    live = torch.ones(layout.R, device=own.x.device)
    live[: layout.Q] = kept
    # No client has this number.
    key = Purpose.SERVER, now.t, number, 1
    seed(own.x.device, torch_seed(run_seed, *key))
    inputs, targets = samples[0]
    task = Task(own.model, layout, own.x, own.g, base, kept, live, inputs, targets, chosen["epochs"],
                chosen["batch_size"], chosen["lr"], stream(run_seed, *key), now, casting=own.casting,
                optimiser=own.optimiser, rates=own.rates, clip_norm=own.clip_norm)
    trained = descend(task, Descent(loss=loss, batches=in_order(samples, chosen["batch_size"])))
    return with_part(own.kind, x, own.x.cpu()), trained


def in_order(samples, batch_size):
    """The batches of ``samples``, a list of (inputs, targets), in their order: no batch holds
    samples of two of them."""
    batches = []
    for inputs, targets in samples:
        sizes = _sizes(len(targets), batch_size)
        batches += zip(inputs.split(sizes), targets.split(sizes))
    return tuple(batches)


def _sizes(n, batch_size):
    """The sizes of the batches of n samples. A last one of a single sample joins the batch before it, as it
    has no variance to normalise by."""
    whole, rest = divmod(n, batch_size)
    sizes = [batch_size] * whole + [rest] * (rest > 0)
    if rest == 1 and whole:
        sizes[-2:] = [batch_size + 1]
    return sizes
