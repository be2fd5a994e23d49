"""One client's local training on the model vector."""

import torch
from torch import nn


def batches(task, shuffle=True):
    """The (inputs, labels) of one epoch; the last batch may be smaller. A single sample left over is dropped where
    the model normalises over the batch, which one sample cannot feed."""
    n = len(task.labels)
    order = torch.from_numpy(task.gen.permutation(n)).to(task.labels.device) if shuffle else None
    single = n > 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in task.model.modules())
    for start in range(0, n, task.batch_size):
        stop = min(start + task.batch_size, n)
        if single and stop - start == 1:
            return
        rows = slice(start, stop) if order is None else order[start:stop]
        yield task.inputs[rows], task.labels[rows]


def sgd(task, momentum=0.0, weight_decay=0.0, correct=None, shuffle=True, loss=nn.functional.cross_entropy):
    """Masked mini-batch SGD on ``task.x`` in place; returns the mean training loss over all samples seen.

    The arithmetic is that of ``torch.optim.SGD``, bit for bit. ``correct(x, g)``, both (R,), may add to the gradient
    in place (FedProx's pull). The gradient is masked before the momentum sees it, so pruned weights stay zero.
    """
    x, g, live = task.x[: task.layout.R], task.g, task.live
    sparse = not bool(task.mask.sum() == task.layout.num_weights) or task.probe.epoch is not None
    velocity = torch.zeros_like(g) if momentum else None
    total, seen = torch.zeros((), device=x.device), 0
    task.model.train()
    for epoch in range(task.epochs):
        for inputs, labels in batches(task, shuffle):
            g.zero_()
            value = loss(task.model(inputs), labels)
            value.backward()
            total += value.detach() * len(labels)
            seen += len(labels)
            if task.probe.step is not None:
                task.probe.step(g)
            if correct is not None:
                correct(x, g)
            if weight_decay:
                g.add_(x, alpha=weight_decay)
            if sparse:
                g.mul_(live)
            if momentum:
                velocity.mul_(momentum).add_(g)
            x.add_(velocity if momentum else g, alpha=-task.lr)
        if task.probe.epoch is not None and task.probe.epoch(epoch):
            x.mul_(live)
            if momentum:
                velocity.mul_(live)
    return float(total) / max(seen, 1)


def dense_gradient(task, num_batches, loss=nn.functional.cross_entropy):
    """(R,): the mean dense gradient at the received model over ``num_batches`` mini-batches drawn without replacement
    (all of them where there are fewer). Batch statistics are left as they were."""
    task.g.zero_()
    taken = 0
    task.model.eval()
    for inputs, labels in batches(task):
        loss(task.model(inputs), labels).backward()
        taken += 1
        if taken == num_batches:
            break
    gradient = task.g / max(taken, 1)
    task.g.zero_()
    return gradient
