"""One client's local training on the model vector."""

import contextlib
from functools import partial

import torch

from fedmpi.core.layout import views
from fedmpi.core.support import count
from fedmpi.core.tensors import normalises_batches

GATHERED = 1 << 24            # input values that are brought into an epoch's order at a time, 64 MiB


def batches(task, shuffle=True):
    """The (inputs, labels) of one epoch, views; the last batch may be smaller. A single sample left over is dropped
    where the model normalises over the batch, which one sample cannot feed."""
    n, size = len(task.labels), task.batch_size
    order = torch.from_numpy(task.gen.permutation(n)) if shuffle else torch.arange(n)
    if n > 1 and n % size == 1 and normalises_batches(task.model):
        order = order[:-1]
    many = max(1, GATHERED // max(1, size * task.inputs[0].numel()))
    for rows in order.to(task.labels.device).split(many * size):
        yield from zip(task.inputs[rows].split(size), task.labels[rows].split(size))


def sgd(task, momentum=0.0, weight_decay=0.0, mu=0.0, shuffle=True, loss=None):
    """Masked mini-batch SGD on ``task.x`` in place; returns the mean training loss over all samples seen.

    The arithmetic is that of ``torch.optim.SGD(fused=True)``, bit for bit. ``mu`` pulls towards ``task.base``,
    as FedProx does. The gradient is masked before the momentum sees it, so pruned weights stay zero. ``loss`` takes
    the place of the objective's.

    Steps are recorded where the task has a recorder and nobody watches them.
    """
    probe, layout = task.probe, task.layout
    sparse = count(task.mask) < layout.num_weights or probe.epoch is not None
    start = {"live": task.live, "velocity": torch.zeros_like(task.g), "total": torch.zeros((), device=task.x.device)}
    if mu:
        start["base"] = task.base[: layout.R]
    value_of = loss or task.objective.loss
    make, watched = partial(_step, task, momentum, weight_decay, mu, sparse, value_of), probe.step or probe.epoch
    if task.recorder is None or watched or loss is not None:
        step, held = make(start), start
    else:
        step, held = task.recorder.steps((task.lr, momentum, weight_decay, mu, sparse), make, start)
    seen = 0
    task.model.train()
    for epoch in range(task.epochs):
        for inputs, labels in batches(task, shuffle):
            step(inputs, labels)
            seen += len(labels)
        if probe.epoch is not None and probe.epoch(epoch):
            task.x[: layout.R].mul_(task.live)
            held["velocity"].mul_(task.live)
    if mu or probe.step is not None:
        task.g.zero_()
    return float(held["total"]) / max(seen, 1)


def _step(task, momentum, weight_decay, mu, sparse, loss, held):
    """``step(inputs, labels)`` of ``sgd`` with ``live``, ``velocity`` and with mu ``base``, all (R,), and ``total ()``,
    the sum of the losses of all samples, in ``held``; it keeps nothing of the task that is its client's."""
    model, layout, g, casting, watch = task.model, task.layout, task.g, task.casting, task.probe.step
    x, velocity, total = task.x[: layout.R], held["velocity"], held["total"]
    named, seeing = dict(model.named_parameters()), mu or watch is not None      # the gradient as one vector
    trained = [named[slot.name] for slot in layout.trained]
    parameters, velocities = views(layout, x), views(layout, velocity) if momentum else []
    lives, shown = views(layout, held["live"]) if sparse else [], views(layout, g) if seeing else []
    move = partial(torch._fused_sgd_, lr=task.lr, momentum=momentum, weight_decay=weight_decay, dampening=0,
                   nesterov=False, maximize=False, is_first_step=False)      # what SGD(fused=True) calls in the end

    def step(inputs, labels):
        with casting():
            value = loss(model(inputs), labels)
        gradients = torch.autograd.grad(value, trained, materialize_grads=True)
        gradients = [each.contiguous() for each in gradients]          # fused steps take all in memory's order
        total.add_(value.detach(), alpha=len(labels))
        if seeing:
            torch._foreach_copy_(shown, gradients)
            gradients = shown
        if watch is not None:
            watch(g)
        if mu:
            g.add_(x, alpha=mu).sub_(held["base"], alpha=mu)
        if sparse:
            gradients = torch._foreach_mul(gradients, lives)           # not in place: two weights may share one
        move(parameters, gradients, velocities)

    return step


def casting(precision, device):
    """What ``Task.casting`` is for ``float32`` or ``bf16``: with bf16, products and convolutions take and give
    bfloat16, and the weights, their gradients and the optimiser stay float32."""
    if precision == "float32":
        return contextlib.nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def dense_gradient(task, num_batches, loss=None):
    """(R,): the mean dense gradient at the received model over ``num_batches`` mini-batches drawn without replacement
    (all of them where there are fewer). Batch statistics are left as they were."""
    loss = loss or task.objective.loss
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
