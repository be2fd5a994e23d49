"""The reference side of a measurement, in the same processes as ours."""

import time

import numpy as np
import torch
from torch import nn

from fedmpi.methods.datasets.dataset import inputs, laid


def slowest_s(replies, column=0):
    """The largest of the workers' seconds; ``column`` is their place in an answer to ``plain``."""
    return max(float(reply.arrays["plain"][column]) for reply in replies)


class WithReference:
    """A worker with one more job: it answers ``{"plain": task}`` with ``{"plain": plain(worker,
    task)}``, a numpy array."""

    def __init__(self, worker, plain):
        self.worker = worker
        self.plain = plain

    def receive(self, meta, arrays):
        self.worker.receive(meta, arrays)

    def total(self, count):
        return self.worker.total(count)

    def run(self, job, arrays):
        # All other jobs are the worker's own.
        if "plain" in job:
            answer = self.plain(self.worker, job["plain"])
            return {}, {"plain": answer}
        return self.worker.run(job, arrays)


def plain_model(name, shape):
    """The network in plain PyTorch, 10 classes: ``cnn`` (582,026 weights on 28 x 28 grey images) or
    ``logistic``."""
    if name == "logistic":
        features = int(np.prod(shape))
        return nn.Sequential(nn.Flatten(), nn.Linear(features, 10))
    channels = shape[0]
    body = [
        nn.Conv2d(channels, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    ]
    # Their number follows from the image's size.
    sample = torch.zeros(1, *shape)
    features = nn.Sequential(*body)(sample).numel()
    head = [
        nn.Linear(features, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    ]
    return nn.Sequential(*body, *head)


def plain_loop(worker, task):
    """``(steps, seconds)`` of the local steps of ``task["clients"]`` and nothing else:
    ``torch.optim.SGD`` with momentum and weight decay over tensors in memory, one model for all of
    them.

    Images lie in torch's own layout, channel by channel, even with a single channel. With
    ``task["laid"]`` they lie as in our own loop, which is unusual elsewhere."""
    device = torch.device(task.get("device", "cpu"))
    x, y, sizes = _shards(worker.data, task, device)
    model = plain_model(task["model"], x.shape[1:]).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    steps = 0
    first = 0
    start = time.perf_counter()
    for size in sizes:
        # x and y hold the shards one after the other.
        order = torch.randperm(size) + first
        for batch in order.split(task["batch_size"]):
            plain_step(model, optimiser, x[batch], y[batch])
            steps += 1
        first += size
    # Work on a GPU goes on after the calls.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return np.array([steps, time.perf_counter() - start])


def _shards(data, task, device):
    """``(inputs, labels, sizes)``: the task's clients one after the other, on ``device``, and the
    number of samples of each."""
    shards = []
    for client in task["clients"]:
        first, stop = data["offsets"][client: client + 2]
        shards.append(np.arange(first, stop))
    rows = np.concatenate(shards)
    samples = data["indices"][rows]
    images = torch.from_numpy(data["x_train"][samples]).to(device)
    x = inputs(images, task["mean"], task["std"])
    y = torch.from_numpy(data["labels"][rows]).to(device)
    if task.get("laid"):
        x = laid(x)
    else:
        x = torch.empty(x.shape, device=device).copy_(x)
    sizes = [len(shard) for shard in shards]
    return x, y, sizes


def plain_step(model, optimiser, x, y):
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimiser.step()
