"""A training step of a network without some of its filters and neurons against a step of the whole.

Both sides train the same batches by ``fedmpi.compute.sgd.descend``, turn by turn. The filters of least L1 norm are cut,
the same share in every layer, as at a client of FedMP's.
"""

import statistics
import time

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.bench.ratios import ratios
from fedmpi.compute.sgd import descend
from fedmpi.compute.structure import check, cut
from fedmpi.compute.trace import trace
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.flops import costs, forward
from fedmpi.core.layout import bind
from fedmpi.core.parts import Round, Task
from fedmpi.core.units import choose, flat, entries_of, l1
from fedmpi.methods.datasets.dataset import laid
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.methods.tasks.classification import classification
from fedmpi.plugins.spec import make
from fedmpi.run.devices import pick_device

RULE = {"momentum": 0.9, "weight_decay": 1e-3}
LR, CLASSES = 0.01, 10
# The most of the whole network's time, with half of the filters on a CPU.
LIMIT = 0.35


def measure(device, repeats, say, *, model, size, channels, batch_size, samples, rate):
    """Print milliseconds a step of both, and the time to find and build the smaller network.

    ``size`` is the side of the square images in pixels, ``samples`` are a client's, ``rate`` is the share of units to
    cut. Returns the exit code: 1 if half of the filters take more than LIMIT.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    device = pick_device(device, 0)
    shape = channels, size, size
    torch.manual_seed(0)
    network = make(catalog.MODELS, model, shape, CLASSES).to(device)
    layout, x, g = bind(network)
    sample = torch.randn(2, *shape)
    trace_s, structure = _timed(lambda: trace(network, layout, sample.to(device)))
    check(network, structure, x, sample.to(device))
    units = flat(structure, choose(l1(structure, x.cpu()), rate))
    builds = [_timed(lambda: cut(network, structure, units)) for _ in range(repeats)]
    build_s = min(seconds for seconds, _ in builds)
    small = cut(network, structure, units)
    small.down(x)

    inputs = laid(torch.randn(samples, *shape).to(device))
    labels = torch.randint(0, CLASSES, (samples,)).to(device)
    nets = (network, layout, x, g), small[:4]
    whole_ms, small_ms = _taken_ms(nets, inputs, labels, batch_size, repeats)
    quotients = ratios(small_ms, whole_ms)
    ratio = statistics.median(quotients)
    step_ms = statistics.median(small_ms)
    build_ms = 1e3 * build_s

    per_sample = costs(network, layout, sample[:1].to(device))
    whole_flops = forward(layout, per_sample, layout.full_mask())
    small_flops = forward(layout, per_sample, entries_of(structure, units))
    say(f"{model} without {rate:g} of the units of each layer, images {shape}, batch {batch_size}:")
    say(f"  {'values':28} {len(small.support) / layout.num_values:9.4f} of the whole network's")
    say(f"  {'FLOPs':28} {small_flops / whole_flops:9.4f}")
    say(f"  {'milliseconds a step':28} {step_ms:9.4f} against {statistics.median(whole_ms):.4f}")
    say(f"  {'ratio, pair by pair':28} {ratio:9.4f} ({min(quotients):.4f} to {max(quotients):.4f}, "
        f"{repeats} pairs)")
    say(f"  {'to find the units, once':28} {1e3 * trace_s:9.4f} ms")
    say(f"  {'to build a smaller network':28} {build_ms:9.4f} ms, as long as {build_ms / step_ms:.2f} of its steps")
    bounded = rate == 0.5 and device.type == "cpu"
    return int(bounded and ratio > LIMIT)


def _taken_ms(nets, inputs, labels, batch_size, repeats):
    """``[milliseconds a step]`` of each of ``nets``, one a repeat, turn by turn, without the warm-up."""
    steps = -(-len(labels) // batch_size)
    taken_ms = [[] for _ in nets]
    for repeat in range(repeats + 1):
        for taken, net in zip(taken_ms, nets):
            task = _task(*net, inputs, labels, batch_size, repeat)
            seconds, _ = _timed(lambda: _trained(task))
            taken.append(1e3 * seconds / steps)
    return [taken[1:] for taken in taken_ms]


def _timed(work):
    """``(seconds, result of work)``: of this process's own time, unless a GPU works for it."""
    gpu = torch.cuda.is_initialized()
    clock = time.perf_counter if gpu else time.process_time
    begin = clock()
    result = work()
    if gpu:
        torch.cuda.synchronize()
    return clock() - begin, result


def _task(model, layout, x, g, inputs, labels, batch_size, seed):
    """A client's training of one epoch."""
    mask = layout.full_mask().to(x.device)
    trainable = torch.ones(layout.R, device=x.device)
    return Task(model, layout, x, g, x.clone(), mask, trainable, inputs, labels, 1, batch_size, LR,
                np.random.default_rng(seed), Round(1, 1), optimiser=sgd(**RULE), objective=classification())


def _trained(task):
    """One epoch; the model is restored afterwards."""
    done = descend(task)
    task.x.copy_(task.base)
    return done
