"""The reference side of a measurement, in the same processes as ours."""

import time

import numpy as np
import torch
from torch import nn

from fedmpi.methods.datasets.dataset import inputs, laid


def num_workers(transport):
    """Workers of a transport; in one process the server's rank is a worker, too."""
    return max(transport.size - 1, 1)


def device_name(device):
    """The name of a GPU, or "a CPU"."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "a CPU"


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

    def total(self, start, stop):
        return self.worker.total(start, stop)

    def run(self, job, arrays):
        # All other jobs are the worker's own.
        if "plain" in job:
            answer = self.plain(self.worker, job["plain"])
            return {}, {"plain": answer}
        return self.worker.run(job, arrays)


def drawn(samples, shape, classes, device, gen=None):
    """``(inputs, labels)`` of noise, laid out as in our own loop; None: by torch's generator."""
    images = torch.randn(samples, *shape, generator=gen)
    labels = torch.randint(0, classes, (samples,), generator=gen)
    x = laid(images.to(device))
    y = labels.to(device)
    return x, y


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
    wait_for(device)
    seconds = time.perf_counter() - start
    return np.array([steps, seconds])


def wait_for(device):
    """Wait until a GPU has done its work, which goes on after the calls."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shard(worker, number):
    """``(inputs, labels)`` of a shard of the worker's data, on its device: a client's, by its
    number, or the server's validation samples behind them."""
    data = worker.data
    samples = worker.samples
    first, stop = data["offsets"][number: number + 2]
    numbers = data["indices"][first:stop]
    images = torch.from_numpy(data["x_train"][numbers])
    images = images.to(worker.device)
    labels = torch.from_numpy(data["labels"][first:stop])
    x = inputs(images, samples.mean, samples.std)
    y = labels.to(worker.device)
    return x, y


def _shards(data, task, device):
    """``(inputs, labels, sizes)``: the task's clients one after the other, on ``device``, and the
    number of samples of each."""
    shards = []
    for client in task["clients"]:
        first, stop = data["offsets"][client: client + 2]
        shards.append(np.arange(first, stop))
    rows = np.concatenate(shards)
    samples = data["indices"][rows]
    images = torch.from_numpy(data["x_train"][samples])
    labels = torch.from_numpy(data["labels"][rows])
    x = inputs(images.to(device), task["mean"], task["std"])
    y = labels.to(device)
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
