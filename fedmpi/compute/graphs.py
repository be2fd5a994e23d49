"""A training step as one launch.

A small network leaves a GPU waiting for Python, which launches some hundred kernels a step. A step that has been taken
a few times is recorded as a CUDA graph and replayed from then on: the same kernels on the same memory in one launch,
hence the same bits, at whatever step recording begins.

What a replay does is what the recorded step did, so a network whose step may differ from one time to the next is not
recorded: one that waits for the GPU (and may then decide), and one with layers or a loss that are neither torch's nor
ours.
"""

import math
import warnings
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

USUAL = 6             # steps of a shape that are taken kernel by kernel first: the libraries have then chosen theirs
SHAPES = 8            # of batches, that are recorded of one rule: a client's last batch may have any size
RULES = 4             # ways to train that are remembered
ROOM = 1 / 4          # of a GPU's memory: where less is free no more is recorded
KNOWN = {"torch", "torchvision", "fedmpi"}
WAITING = "called a synchronizing CUDA operation"


def recorder(model, device, loss):
    """The ``Recorder`` of a model that stays where it is on a GPU and trains on this ``loss``; None where its steps are
    not to be recorded."""
    if device.type != "cuda":
        return None
    modules = list(model.modules())
    known = all(each.__module__.partition(".")[0] in KNOWN for each in (loss, *map(type, modules)))
    counts = any(isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is None for module in modules)
    remembers = any(isinstance(module, nn.RNNBase) for module in modules)
    return Recorder() if known and not (counts or remembers) else None


class Recorder:
    """Steps of one model by each rule that it is trained with."""

    def __init__(self):
        self.made = {}                # (rule, shapes) -> (step, its tensors)

    def steps(self, rule, make, start):
        """``(step, held)``: ``make(held)`` as made for the same rule and shapes before, and the tensors that it reads
        and writes, by name, which hold the values of ``start``. What a step does may depend on ``rule``, the model and
        these tensors alone."""
        key = rule, tuple((name, tensor.shape) for name, tensor in start.items())
        if key not in self.made:
            if len(self.made) == RULES:
                self.forget()
            held = {name: tensor.clone() for name, tensor in start.items()}
            self.made[key] = Recorded(make(held)), held
            return self.made[key]
        for name, tensor in self.made[key][1].items():
            tensor.copy_(start[name])
        return self.made[key]

    def forget(self):
        """Give all memory back."""
        self.made.clear()


class Recorded:
    """``step(*batch, **fixed)``, tensors and what else tells one kind of step from another, replayed once that kind has
    been seen often enough."""

    def __init__(self, step):
        self.step, self.taken, self.graphs = step, {}, {}

    def __call__(self, *batch, **fixed):
        kind = *(tensor.shape for tensor in batch), *fixed.items()
        count = self.taken[kind] = self.taken.get(kind, 0) + 1
        if count == USUAL:
            if waits(partial(self.step, *batch, **fixed)):
                self.taken[kind] = math.inf                # and stays so: never recorded
            return
        if count == USUAL + 1 and len(self.graphs) < SHAPES and roomy():
            self.graphs[kind] = record(self.step, batch, fixed)
        if kind in self.graphs:
            replay(self.graphs[kind], batch)
        else:
            self.step(*batch, **fixed)


class Graph(NamedTuple):
    """A recorded step, and the batch that it reads."""

    graph: Any                    # torch.cuda.CUDAGraph
    batch: list


def record(step, batch, fixed):
    """The ``Graph`` of ``step`` for batches like this one; nothing is computed yet."""
    graph, held = torch.cuda.CUDAGraph(), [torch.empty_like(tensor) for tensor in batch]
    with torch.cuda.graph(graph, capture_error_mode="relaxed"):         # the allocator may give memory back
        step(*held, **fixed)
    return Graph(graph, held)


def roomy():
    """Whether a recording may keep the memory that its step takes."""
    free, total = torch.cuda.mem_get_info()
    return free > ROOM * total


def replay(recorded, batch):
    """Take the step on another batch of the same shapes."""
    for held, tensor in zip(recorded.batch, batch):
        held.copy_(tensor)
    recorded.graph.replay()


def waits(work):
    """Whether ``work()`` waits for the GPU, as one does who looks at a value."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return any(WAITING in str(each.message) for each in said)
