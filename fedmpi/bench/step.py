"""A training step of ours against the bare one, on one device, without rounds.

Both sides take the same number of steps with SGD with momentum and weight decay over tensors that are already there.
The reference is ``torch.optim.SGD`` on the module as it is. Ours are clients one by one and, where the network allows
it, G side by side; on a GPU each kernel by kernel and recorded (``fedmpi.compute.graphs``).
"""

import statistics
import time
from functools import partial

import numpy as np
import torch
from torch import nn

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.run.devices import pick_device
from fedmpi.methods.datasets.dataset import laid
from fedmpi.core.layout import bind
from fedmpi.compute.graphs import recorder
from fedmpi.compute.sgd import casting, descend
from fedmpi.core.parts import Round, Task
from fedmpi.methods.tasks.classification import classification
from fedmpi.compute.stacked import refusal, stacked
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.methods.optimisers.sgd import sgd

RULE = {"momentum": 0.9, "weight_decay": 1e-3}
LR, CLASSES = 0.01, 10


def measure(device, repeats, say, *, model, size, channels, batch_size, samples, together, sparsity, precision):
    """Print milliseconds a step and client of each side; returns the exit code. ``size`` is that of the square images,
    ``samples`` those of a client, ``sparsity`` the share of weights that are pruned."""
    torch.set_num_threads(1)
    keep_freed_memory()                             # as a run does; for both sides
    device = pick_device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu", 0)
    shape = channels, size, size
    network, plain = (make(catalog.MODELS, model, shape, CLASSES).to(device) for _ in range(2))
    gen = torch.Generator().manual_seed(0)
    x = laid(torch.randn(samples, *shape, generator=gen).to(device))
    y = torch.randint(0, CLASSES, (samples,), generator=gen).to(device)
    cast = casting(precision, device)
    sides = {"bare loop": (partial(_bare, plain, x, y, batch_size, cast), 1)} | _ours(
        network, x, y, batch_size, cast, sparsity, together, gen, say)
    steps, took = -(-samples // batch_size), {name: [] for name in sides}
    for repeat in range(repeats + 1):                      # the first warms up
        for name, (work, clients) in sides.items():
            begin = time.perf_counter()
            work(repeat)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            took[name].append(1e3 * (time.perf_counter() - begin) / steps / clients)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    say(f"{model} ({sum(p.numel() for p in plain.parameters()):,} weights, sparsity {sparsity:g}, {precision}) on "
        f"{where}, images {shape}, batch {batch_size}, {steps} steps; milliseconds a step and client (median of "
        f"{repeats}, least to most):")
    bare = statistics.median(took["bare loop"][1:])
    for name, each in took.items():
        middle = statistics.median(each[1:])
        say(f"  {name:28} {middle:9.4f} ({min(each[1:]):.4f} to {max(each[1:]):.4f}), "
            f"{bare / middle:.2f} times the bare loop's speed")


def _bare(model, x, y, batch_size, cast, repeat):
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=LR, **RULE)
    for batch in torch.randperm(len(y), device=y.device).split(batch_size):
        optimiser.zero_grad()
        with cast():
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimiser.step()


def _ours(model, inputs, labels, batch_size, cast, sparsity, G, gen, say):
    """``{name: (work, clients)}``."""
    device = inputs.device
    layout, x, g = bind(model)
    mask = layout.full_mask() & (torch.rand(layout.Q, generator=gen) >= sparsity)
    live = torch.ones(layout.R)
    live[: layout.Q] = mask
    mask, live = mask.to(device), live.to(device)
    x[: layout.R] *= live
    base, found, optimiser = x.clone(), {}, sgd(**RULE)

    def task(client, record):
        return Task(model, layout, x, g, base, mask, live, inputs, labels, 1, batch_size, LR,
                    np.random.default_rng(client), Round(1, 1), casting=cast, recorder=record,
                    optimiser=optimiser, objective=classification())

    def alone(record, repeat):
        x.copy_(base)
        descend(task(repeat, record))

    def beside(wide, repeat):
        wide([task(repeat * G + row, None) for row in range(G)])

    why = refusal(model, layout, inputs[:2]) if G > 1 else "none asked for"
    if G > 1 and why:
        say(f"no clients side by side: {why}")
    kept = recorder(model, device, classification().loss)
    for way, record in [("", None)] + [(", recorded", kept)] * (kept is not None):
        found["one by one" + way] = partial(alone, record), 1
        if not why:
            found[f"{G} side by side" + way] = partial(beside, stacked(model, layout, record)), G
    return found
