"""One client's local training on the model vector."""

import contextlib
from functools import partial

import torch
from torch import nn

BLOCK = 1 << 16               # values of the vector that an optimiser step takes at a time: they stay in a core's cache
GATHERED = 1 << 24            # input values that are brought into an epoch's order at a time, 64 MiB


def batches(task, shuffle=True):
    """The (inputs, labels) of one epoch, views; the last batch may be smaller. A single sample left over is dropped
    where the model normalises over the batch, which one sample cannot feed."""
    n, size = len(task.labels), task.batch_size
    order = torch.from_numpy(task.gen.permutation(n)) if shuffle else torch.arange(n)
    if n > 1 and n % size == 1 % size and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in task.model.modules()):
        order = order[: n - 1 if size > 1 else 0]
    many = max(1, GATHERED // max(1, size * task.inputs[0].numel()))
    for rows in order.to(task.labels.device).split(many * size):
        yield from zip(task.inputs[rows].split(size), task.labels[rows].split(size))


def sgd(task, momentum=0.0, weight_decay=0.0, correct=None, shuffle=True, loss=nn.functional.cross_entropy):
    """Masked mini-batch SGD on ``task.x`` in place; returns the mean training loss over all samples seen.

    The arithmetic is that of ``torch.optim.SGD``, bit for bit. ``correct(x, g)``, both (R,), may add to the gradient
    in place (FedProx's pull). The gradient is masked before the momentum sees it, so pruned weights stay zero.
    """
    x, g, live = task.x[: task.layout.R], task.g, task.live
    sparse = not bool(task.mask.sum() == task.layout.num_weights) or task.probe.epoch is not None
    velocity = torch.zeros_like(g) if momentum else None
    step = _stepper(x, g, velocity, live if sparse else None, task.lr, momentum, weight_decay)
    total, seen = torch.zeros((), device=x.device), 0
    task.model.train()
    g.zero_()
    for epoch in range(task.epochs):
        for inputs, labels in batches(task, shuffle):
            with task.casting():
                value = loss(task.model(inputs), labels)
            value.backward()
            total += value.detach() * len(labels)
            seen += len(labels)
            if task.probe.step is not None:
                task.probe.step(g)
            if correct is not None:
                correct(x, g)
            step()
        if task.probe.epoch is not None and task.probe.epoch(epoch):
            x.mul_(live)
            if momentum:
                velocity.mul_(live)
    return float(total) / max(seen, 1)


def casting(precision, device):
    """What ``Task.casting`` is for ``float32`` or ``bf16``: with bf16, products and convolutions take and give bfloat16,
    and the weights, their gradients and the optimiser stay float32."""
    if precision == "float32":
        return contextlib.nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def _stepper(x, g, velocity, live, lr, momentum, weight_decay):
    """``step()``: one step of SGD on ``x (R,)`` by its gradient ``g (R,)``, which is zero afterwards. Block by block:
    each of the passes over 600,000 values at once takes from memory what the last one put there, which costs half as
    much again."""
    parts = [part for part in (x, g, velocity, live) if part is not None]
    blocks = list(zip(*(part.split(BLOCK) for part in parts))) if x.device.type == "cpu" else [parts]

    def step():
        for x, g, *rest in blocks:
            if weight_decay:
                g.add_(x, alpha=weight_decay)
            if live is not None:
                g.mul_(rest[-1])
            if momentum:
                rest[0].mul_(momentum).add_(g)
            x.add_(rest[0] if momentum else g, alpha=-lr)
            g.zero_()

    return step


def dense_gradient(task, num_batches, loss=nn.functional.cross_entropy):
    """(R,): the mean dense gradient at the received model over ``num_batches`` mini-batches drawn without replacement
    (all of them where there are fewer). Batch statistics are left as they were."""
    task.g.zero_()
    taken = 0
    task.model.eval()
    for inputs, labels in batches(task):
        with task.casting():
            value = loss(task.model(inputs), labels)
        value.backward()
        taken += 1
        if taken == num_batches:
            break
    gradient = task.g / max(taken, 1)
    task.g.zero_()
    return gradient
