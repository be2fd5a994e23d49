"""The reference side of a measurement, in the same processes as ours."""

import time

import numpy as np
import torch
from torch import nn

from fedmpi.methods.datasets.dataset import inputs, laid


class WithReference:
    """A worker that also answers ``{"plain": what}`` with ``{"plain": plain(worker, what)}``, a numpy array."""

    def __init__(self, worker, plain):
        self.worker, self.plain = worker, plain

    def receive(self, meta, arrays):
        self.worker.receive(meta, arrays)

    def total(self, count):
        return self.worker.total(count)

    def run(self, job, arrays):
        if "plain" in job:
            return {}, {"plain": self.plain(self.worker, job["plain"])}
        return self.worker.run(job, arrays)


def plain_model(name, shape):
    """The network as one writes it, 10 classes: ``cnn`` (582,026 weights on 28 x 28 grey images) or ``logistic``."""
    if name == "logistic":
        return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 10))
    body = nn.Sequential(nn.Conv2d(shape[0], 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(body(torch.zeros(1, *shape)).numel(), 512), nn.ReLU(), nn.Linear(512, 10))


def plain_loop(worker, what):
    """``(steps, seconds)`` of the local steps of ``what["clients"]`` and nothing else: ``torch.optim.SGD`` with
    momentum and weight decay over tensors in memory, one model for all of them. Images lie as torch lays them out,
    channel by channel, also where there is one only; with ``what["laid"]`` as ours do, which hardly anybody's loop
    does."""
    data = worker.data
    shards = [np.arange(*data["offsets"][n: n + 2]) for n in what["clients"]]
    rows, device = np.concatenate(shards), torch.device(what.get("device", "cpu"))
    raw = torch.from_numpy(data["x_train"][data["indices"][rows]]).to(device)
    x, y = inputs(raw, what["mean"], what["std"]), torch.from_numpy(data["labels"][rows]).to(device)
    x = laid(x) if what.get("laid") else torch.empty(x.shape, device=device).copy_(x)
    model = plain_model(what["model"], x.shape[1:]).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    steps, first, start = 0, 0, time.perf_counter()
    for shard in shards:
        for batch in (torch.randperm(len(shard)) + first).split(what["batch_size"]):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
            steps += 1
        first += len(shard)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return np.array([steps, time.perf_counter() - start])
