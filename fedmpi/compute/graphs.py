"""A training step as one launch.

A small network leaves a GPU waiting for Python, as Python launches some hundred kernels a step.
After a few times a step is recorded as a CUDA graph and replayed from then on: the same kernels on
the same memory in one launch, hence the same bits, at whatever step recording begins.

A replay repeats the recorded step. Networks with steps that may differ from one time to the next
are not recorded: networks that wait for the GPU (and may then decide), and networks with layers or
a loss from outside torch and this package.
"""

import math
import warnings
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

# Steps of a shape that are taken kernel by kernel first: the libraries have then chosen theirs.
USUAL = 6
# Shapes of batches that are recorded of one rule: a client's last batch may have any size.
SHAPES = 8
# Ways to train that are remembered.
RULES = 4
# Of a GPU's memory: if less is free no more is recorded.
ROOM = 1 / 4
# Packages whose layers and losses do the same in every step.
KNOWN = {"torch", "torchvision", "fedmpi"}
# The text of torch's warning about an operation that waits.
WAITING = "called a synchronizing CUDA operation"


def recorder(model, device, loss):
    """The ``Recorder`` of a model that stays on a GPU and trains on this ``loss``.

    None if its steps are not to be recorded.
    """
    if device.type != "cuda":
        return None
    modules = list(model.modules())
    codes = [loss, *map(type, modules)]
    if not all(map(_is_known, codes)):
        return None
    if any(map(_differs, modules)):
        return None
    return Recorder()


def _is_known(code):
    """Whether a function or class comes from torch or from us."""
    return code.__module__.partition(".")[0] in KNOWN


def _differs(module):
    """Whether a layer's steps may differ, though it comes from torch.

    So do recurrent layers, and norms that count their batches and average by the count.
    """
    if isinstance(module, nn.RNNBase):
        return True
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.momentum is None


class Recorder:
    """Steps of one model by each rule that it is trained with."""

    def __init__(self):
        # (rule, shapes) -> (step, its tensors)
        self.made = {}

    def steps(self, rule, make, start):
        """``(step, operands)``: ``make(operands)``, once for each rule and shapes; and its tensors.

        The step reads and writes the tensors ``operands``, by name, first with the values of
        ``start``. It may depend on ``rule``, the model and these tensors alone.
        """
        shapes = [(name, tensor.shape) for name, tensor in start.items()]
        key = rule, tuple(shapes)
        if key in self.made:
            step, operands = self.made[key]
            for name, tensor in operands.items():
                tensor.copy_(start[name])
            return step, operands

        if len(self.made) == RULES:
            self.forget()
        operands = {name: tensor.clone() for name, tensor in start.items()}
        step = Recorded(make(operands))
        self.made[key] = step, operands
        return step, operands

    def forget(self):
        """Give all memory back."""
        self.made.clear()


class Recorded:
    """``step(*batch, **fixed)``, replayed once its kind has been seen often enough.

    A kind is the shapes of the batch's tensors and the values of ``fixed``.
    """

    def __init__(self, step):
        self.step = step
        # kind -> number of steps
        self.taken = {}
        # kind -> Graph
        self.graphs = {}

    def __call__(self, *batch, **fixed):
        shapes = [tensor.shape for tensor in batch]
        kind = *shapes, *fixed.items()
        taken = self.taken.get(kind, 0) + 1
        self.taken[kind] = taken
        if taken == USUAL:
            if waits(partial(self.step, *batch, **fixed)):
                # It stays so: never recorded.
                self.taken[kind] = math.inf
            return

        if taken == USUAL + 1 and len(self.graphs) < SHAPES and roomy():
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
    graph = torch.cuda.CUDAGraph()
    inputs = [torch.empty_like(tensor) for tensor in batch]
    # Relaxed: the allocator may give memory back meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="relaxed"):
        step(*inputs, **fixed)
    return Graph(graph, inputs)


def roomy():
    """Whether a recording may keep the memory that its step takes."""
    free, total = torch.cuda.mem_get_info()
    return free > ROOM * total


def replay(recorded, batch):
    """Take the step on another batch of the same shapes."""
    for static, tensor in zip(recorded.batch, batch):
        static.copy_(tensor)
    recorded.graph.replay()


def waits(work):
    """Whether ``work()`` waits for the GPU, as it must to look at a value."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    messages = [str(warning.message) for warning in raised]
    return any(WAITING in message for message in messages)
