"""The network that only the server has: rank 0 trains it on the features that clients sent."""

from typing import Callable, NamedTuple

import torch

from fedmpi.client.train import seed
from fedmpi.compute.sgd import descend
from fedmpi.core.kinds import NetworkKind, part, with_part
from fedmpi.core.parts import Descent, Optimiser, Schedule, Task
from fedmpi.core.rng import Purpose, stream, torch_seed


class OwnNetwork(NamedTuple):
    """The server's network in a vector of its own; its training takes the clients' options."""

    kind: NetworkKind             # where its values lie in the common vector
    model: torch.nn.Module
    x: torch.Tensor               # (P_k,) the model's own vector, on the server's device
    g: torch.Tensor               # (R_k,) its gradient
    casting: Callable
    optimiser: Optimiser
    rates: Schedule
    clip_norm: float
    settings: dict                # {"epochs": int, "batch_size": int, "lr": float} of the run


def fitted(server_network, now, run_seed, number, x, mask, samples, loss, settings):
    """``(x (P,), Trained)``: the common vector once the network has been trained on ``samples``.

    ``now`` is the Round, ``number`` how many trainings of this network came before in it. ``mask
    (Q,)`` is the common one. ``settings`` take the place of the run's unless they are 0.
    """
    device = server_network.x.device
    layout = server_network.kind.layout
    base = part(server_network.kind, x).to(device)
    server_network.x.copy_(base)
    kept = mask[server_network.kind.weights].to(device)
    trainable = torch.ones(layout.R, device=device)
    trainable[: layout.Q] = kept
    # No client has this number.
    key = Purpose.SERVER, now.t, number, 1
    seed(device, torch_seed(run_seed, *key))
    named = {name: value for name, value in settings.items() if value}
    chosen = server_network.settings | named
    inputs, targets = samples[0]
    task = Task(
        model=server_network.model,
        layout=layout,
        x=server_network.x,
        g=server_network.g,
        base=base,
        mask=kept,
        trainable=trainable,
        inputs=inputs,
        labels=targets,
        epochs=chosen["epochs"],
        batch_size=chosen["batch_size"],
        lr=chosen["lr"],
        gen=stream(run_seed, *key),
        now=now,
        casting=server_network.casting,
        optimiser=server_network.optimiser,
        rates=server_network.rates,
        clip_norm=server_network.clip_norm)
    batches = in_order(samples, chosen["batch_size"])
    trained = descend(task, Descent(loss=loss), batches)
    fitted_x = server_network.x.cpu()
    return with_part(server_network.kind, x, fitted_x), trained


def in_order(samples, batch_size):
    """The batches of ``samples``, a list of (inputs, targets), in their order.

    No batch holds samples of two entries.
    """
    batches = []
    for inputs, targets in samples:
        sizes = _sizes(len(targets), batch_size)
        batches += zip(inputs.split(sizes), targets.split(sizes))
    return batches


def _sizes(n, batch_size):
    """The sizes of the batches of n samples.

    A last batch of a single sample joins the batch before it: it has no variance to normalise by.
    """
    whole, rest = divmod(n, batch_size)
    sizes = [batch_size] * whole
    if rest == 1 and whole:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes
