"""One client's local training on the model vector."""

import contextlib
from functools import partial

import numpy as np
import torch
from torch import nn

from fedmpi.flat import views

GATHERED = 1 << 24            # input values that are brought into an epoch's order at a time, 64 MiB


def batches(task, shuffle=True):
    """The (inputs, labels) of one epoch, views; the last batch may be smaller. A single sample left over is dropped
    where the model normalises over the batch, which one sample cannot feed."""
    n, size = len(task.labels), task.batch_size
    order = torch.from_numpy(task.gen.permutation(n)) if shuffle else torch.arange(n)
    if n > 1 and n % size == 1 % size and any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in task.model.modules()):
        order = order[: n - 1 if size > 1 else 0]
    many = max(1, GATHERED // max(1, size * task.inputs[0].numel()))
    for rows in order.to(task.labels.device).split(many * size):
        yield from zip(task.inputs[rows].split(size), task.labels[rows].split(size))


def sgd(task, momentum=0.0, weight_decay=0.0, correct=None, shuffle=True, loss=nn.functional.cross_entropy):
    """Masked mini-batch SGD on ``task.x`` in place; returns the mean training loss over all samples seen.

    The arithmetic is that of ``torch.optim.SGD(fused=True)``, bit for bit. ``correct(x, g)``, both (R,), may add to the
    gradient in place (FedProx's pull). The gradient is masked before the momentum sees it, so pruned weights stay zero.
    """
    layout, x, live = task.layout, task.x[: task.layout.R], task.live
    seeing = task.probe.step is not None or correct is not None        # somebody wants the gradient as one vector
    sparse = np.count_nonzero(task.mask.cpu()) < layout.num_weights or task.probe.epoch is not None
    velocity, named = torch.zeros_like(task.g), dict(task.model.named_parameters())
    trained = [named[slot.name] for slot in layout.trained]
    parameters, velocities = views(layout, x), views(layout, velocity) if momentum else []
    lives, shown = views(layout, live) if sparse else [], views(layout, task.g) if seeing else []
    step = partial(torch._fused_sgd_, lr=task.lr, momentum=momentum, weight_decay=weight_decay, dampening=0,
                   nesterov=False, maximize=False, is_first_step=False)      # what SGD(fused=True) calls in the end
    total, seen = torch.zeros((), device=x.device), 0
    task.model.train()
    for epoch in range(task.epochs):
        for inputs, labels in batches(task, shuffle):
            with task.casting():
                value = loss(task.model(inputs), labels)
            gradients = torch.autograd.grad(value, trained, materialize_grads=True)
            gradients = [each.contiguous() for each in gradients]      # fused steps take all in memory's order
            total.add_(value.detach(), alpha=len(labels))
            seen += len(labels)
            if seeing:
                torch._foreach_copy_(shown, gradients)
                gradients = shown
            if task.probe.step is not None:
                task.probe.step(task.g)
            if correct is not None:
                correct(x, task.g)
            if sparse:
                gradients = torch._foreach_mul(gradients, lives)       # not in place: two weights may share one
            step(parameters, gradients, velocities)
        if task.probe.epoch is not None and task.probe.epoch(epoch):
            x.mul_(live)
            velocity.mul_(live)
    if seeing:
        task.g.zero_()
    return float(total) / max(seen, 1)


def casting(precision, device):
    """What ``Task.casting`` is for ``float32`` or ``bf16``: with bf16, products and convolutions take and give
    bfloat16, and the weights, their gradients and the optimiser stay float32."""
    if precision == "float32":
        return contextlib.nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


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
