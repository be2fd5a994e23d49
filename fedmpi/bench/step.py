"""A training step of ours against the bare one, on one device, without rounds.

Both sides take the same number of steps with SGD with momentum and weight decay over tensors in
memory. The reference is ``torch.optim.SGD`` on the module as it is. Ours are clients one by one
and, if the network allows it, G side by side; on a GPU each kernel by kernel and recorded
(``fedmpi.compute.graphs``).
"""

import statistics
import time
from functools import partial

import numpy as np
import torch
from torch import nn

from fedmpi import catalog
from fedmpi.bench.ratios import summary
from fedmpi.bench.reference import device_name, drawn, wait_for
from fedmpi.compute.graphs import recorder
from fedmpi.compute.sgd import casting, descend
from fedmpi.compute.stacked import stacked
from fedmpi.compute.stacked_forward import refusal
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.layout import bind
from fedmpi.core.parts import Round, Task
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.methods.tasks.classification import classification
from fedmpi.plugins.spec import make
from fedmpi.run.devices import pick_device

# Of both sides.
RULE = {"momentum": 0.9, "weight_decay": 1e-3}
LR, CLASSES = 0.01, 10


def measure(
        device, repeats, say, *,
        model, size, channels, batch_size, samples, together, sparsity, precision):
    """Print milliseconds a step and client of each side; returns the exit code.

    ``size`` is the side of the square images in pixels, ``samples`` are a client's, ``sparsity`` is
    the share of pruned weights."""
    torch.set_num_threads(1)
    # As a run does; for both sides.
    keep_freed_memory()
    device = _device(device)
    shape = channels, size, size
    # One for each side: ours binds the parameters to its vector.
    network = make(catalog.MODELS, model, shape, CLASSES).to(device)
    plain = make(catalog.MODELS, model, shape, CLASSES).to(device)
    gen = torch.Generator().manual_seed(0)
    x, y = drawn(samples, shape, CLASSES, device, gen)
    cast = casting(precision, device)
    bare = partial(_bare, plain, x, y, batch_size, cast)
    # {name: (work, clients trained by it)}
    sides = {"bare loop": (bare, 1)}
    sides |= _ours(
        network,
        x,
        y,
        batch_size,
        cast,
        sparsity,
        together,
        gen,
        say)
    # The last batch may be smaller.
    steps = -(-samples // batch_size)
    taken_ms = _taken_ms(sides, steps, repeats, device)
    where = device_name(device)
    num_weights = sum(parameter.numel() for parameter in plain.parameters())
    say(f"{model} ({num_weights:,} weights, sparsity {sparsity:g}, {precision}) on {where}, "
        f"images {shape}, batch {batch_size}, {steps} steps; milliseconds a step and client "
        f"(median of {repeats}, least to most):")
    bare_ms = statistics.median(taken_ms["bare loop"])
    for name, taken in taken_ms.items():
        say(_side_line(name, taken, bare_ms))


def _side_line(name, taken_ms, bare_ms):
    median_ms, least_ms, most_ms = summary(taken_ms)
    speed = bare_ms / median_ms
    return (
        f"  {name:28} {median_ms:9.4f} ({least_ms:.4f} to {most_ms:.4f}), "
        f"{speed:.2f} times the bare loop's speed")


def _device(name):
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return pick_device(name, 0)


def _taken_ms(sides, steps, repeats, device):
    """``{name: [milliseconds a step and client]}``, one a repeat, turn by turn, without the
    warm-up."""
    taken_ms = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, (work, clients) in sides.items():
            begin = time.perf_counter()
            work(repeat)
            wait_for(device)
            seconds = time.perf_counter() - begin
            step_ms = 1e3 * seconds / steps
            taken_ms[name].append(step_ms / clients)
    return {name: taken[1:] for name, taken in taken_ms.items()}


def _bare(model, x, y, batch_size, cast, repeat):
    """An epoch of torch.optim.SGD."""
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=LR, **RULE)
    order = torch.randperm(len(y), device=y.device)
    for batch in order.split(batch_size):
        optimiser.zero_grad()
        with cast():
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimiser.step()


def _ours(model, inputs, labels, batch_size, cast, sparsity, G, gen, say):
    """``{name: (work, clients)}``: one by one, and side by side if possible; on a GPU also
    recorded."""
    device = inputs.device
    layout, x, g = bind(model)
    mask, trainable = _masks(layout, sparsity, gen, device)
    # Pruned weights are zero.
    x[: layout.R] *= trainable
    base = x.clone()
    optimiser = sgd(**RULE)
    objective = classification()

    def task(client, record):
        return Task(
            model,
            layout,
            x,
            g,
            base,
            mask,
            trainable,
            inputs,
            labels,
            epochs=1,
            batch_size=batch_size,
            lr=LR,
            gen=np.random.default_rng(client),
            now=Round(1, 1),
            casting=cast,
            recorder=record,
            optimiser=optimiser,
            objective=objective)

    def one_by_one(record, repeat):
        # Every client starts from the same model.
        x.copy_(base)
        descend(task(repeat, record))

    def side_by_side(train, repeat):
        train([task(repeat * G + row, None) for row in range(G)])

    can_stack = G > 1
    if can_stack:
        why = refusal(model, layout, inputs[:2])
        if why:
            say(f"no clients side by side: {why}")
            can_stack = False
    records = {"": None}
    # None on a CPU, and for networks that cannot be recorded.
    graph = recorder(model, device, objective.loss)
    if graph is not None:
        records[", recorded"] = graph
    sides = {}
    for suffix, record in records.items():
        sides["one by one" + suffix] = partial(one_by_one, record), 1
        if can_stack:
            train = stacked(model, layout, record)
            sides[f"{G} side by side" + suffix] = partial(side_by_side, train), G
    return sides


def _masks(layout, sparsity, gen, device):
    """``(mask (Q,) bool, trainable (R,) float32)``, drawn at ``sparsity``."""
    numbers = torch.rand(layout.Q, generator=gen)
    is_kept = numbers >= sparsity
    mask = layout.full_mask() & is_kept
    # All but the pruned weights.
    trainable = torch.ones(layout.R)
    trainable[: layout.Q] = mask
    return mask.to(device), trainable.to(device)
