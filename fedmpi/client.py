"""The worker: receives the round's model, trains one client at a time, returns what the server needs."""

import ctypes
import time
import zlib
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.data.dataset import inputs
from fedmpi.errors import WireError
from fedmpi.flat import bind, check
from fedmpi.parts import Codec, Pruner, Schedule, Strategy, Task
from fedmpi.rng import Purpose, stream, torch_seed
from fedmpi.wire import positions


def digest(support):
    """A number that changes with the support, for both ends to compare."""
    return zlib.crc32(support.numpy())


def keep_freed_memory():
    """Stop glibc from handing freed activations back to the kernel at every step, which costs a step 10 to 20 %."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 1 << 30)        # M_TRIM_THRESHOLD
        libc.mallopt(-3, 32 << 20)       # M_MMAP_THRESHOLD, the largest that glibc takes
    except (OSError, AttributeError):    # another C library: slower, not wrong
        pass


class WorkerParts(NamedTuple):
    """What a worker trains with, built from the set-up message."""

    model: torch.nn.Module
    strategy: Strategy
    pruner: Pruner
    codec: Codec
    epochs: int
    batch_size: int
    lr: float
    seed: int
    rounds: int


class Worker:
    """One rank's resident model and vectors. Clients hold nothing between rounds but their data and the last mask."""

    def __init__(self, build, pick_device):
        """``build(options, shape, classes) -> WorkerParts``; ``pick_device(name, local_rank) -> torch.device``."""
        self.build, self.pick_device = build, pick_device
        keep_freed_memory()

    def attach(self, arrays, local_rank):
        """Take the node's shared data: ``x_train``, and ``offsets``, ``indices``, ``labels`` of the partition."""
        self.data, self.local_rank = arrays, local_rank

    def receive(self, meta, arrays):
        if meta["kind"] == "setup":
            self._build(meta, arrays)
        else:
            self._take_model(meta, arrays)

    def _build(self, meta, arrays):
        self.mean, self.std = meta["mean"], meta["std"]
        self.parts = self.build(meta["options"], meta["shape"], meta["classes"])
        self.device = self.pick_device(meta["options"]["device"], self.local_rank)
        self.layout, self.x, self.g = bind(self.parts.model.to(self.device))
        check(self.parts.model, self.layout, self.x)
        self.counters = [(b, b.clone()) for b in self.parts.model.buffers() if not b.is_floating_point()]
        self.base = torch.zeros(self.layout.P)
        self.live = torch.ones(self.layout.R, device=self.device)
        self.known = positions.decode(meta["known"], arrays["known"])
        self.mask = None

    def _take_model(self, meta, arrays):
        layout = self.layout
        if meta["layout"] != layout.digest:
            raise WireError(f"the server's model has layout {meta['layout']}, this worker's {layout.digest}")
        self.t = meta["t"]
        numbers = positions.decode(meta["mask"], arrays["mask"], self.known)
        if self.mask is None or meta["mask"]["code"] != "same":
            self.mask = layout.mask_of(torch.from_numpy(numbers))
            self.support = layout.support(self.mask)
            self.support_digest = digest(self.support)
            self.base.zero_()
        self.known = numbers
        if self.support_digest != meta["support"]:
            raise WireError(f"the server's support is {meta['support']}, this worker decoded {self.support_digest}")
        self.base[self.support] = self.parts.codec.decode(arrays, len(self.support))

    def run(self, job):
        """Train client ``job["client"]`` and return its update."""
        start, layout = time.perf_counter(), self.layout
        task = self._task(job["client"])
        if self.parts.pruner.probe is not None:
            task = task._replace(probe=self.parts.pruner.probe(task))
        loss = self.parts.strategy.local(task)
        meta = {"kind": "update", "t": self.t, "support": self.support_digest} | job
        arrays, support = {}, self.support
        mask = task.mask.cpu()
        if not torch.equal(mask, self.mask):
            meta["mask"], arrays["mask"] = positions.encode(layout.numbers(mask).numpy(), layout.num_weights, self.known)
            support = layout.support(mask)
        arrays |= self.parts.codec.encode((self.x.cpu() - self.base).index_select(0, support))
        for name, array in task.probe.report().items():
            if name == "index":
                meta["index"], array = positions.encode(array, layout.Q)
            arrays["report/" + name] = array
        seen = len(task.labels) * task.epochs
        arrays["numbers"] = np.array([len(task.labels), loss, seen, task.probe.extra, task.probe.dense,
                                      time.perf_counter() - start])
        return meta, arrays

    def _task(self, client):
        parts, rows = self.parts, slice(int(self.data["offsets"][client]), int(self.data["offsets"][client + 1]))
        base = self.base.to(self.device)
        self.x.copy_(base)
        for counter, fresh in self.counters:                # no trace of the client before
            counter.copy_(fresh)
        self.live[: self.layout.Q] = self.mask.to(self.device)
        torch.manual_seed(torch_seed(parts.seed, Purpose.TRAIN, self.t, client))
        raw = torch.from_numpy(self.data["x_train"][self.data["indices"][rows]]).to(self.device)
        return Task(parts.model, self.layout, self.x, self.g, base, self.mask.to(self.device, copy=True), self.live,
                    inputs(raw, self.mean, self.std), torch.from_numpy(self.data["labels"][rows]).to(self.device),
                    parts.epochs, parts.batch_size, parts.lr, stream(parts.seed, Purpose.TRAIN, self.t, client),
                    Schedule(self.t, parts.rounds))
