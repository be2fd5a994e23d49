"""A training step of a network without some of its filters and neurons against a step of the whole.

Both sides train the same batches by ``fedmpi.compute.sgd.descend``, turn by turn. The filters of
least L1 norm are cut, the same share in every layer, as at a client of FedMP's.
"""

import statistics
import time

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.bench.ratios import ratios, summary
from fedmpi.bench.reference import drawn
from fedmpi.compute.sgd import descend
from fedmpi.compute.structure import check, cut
from fedmpi.compute.trace import trace
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.flops import costs, forward
from fedmpi.core.layout import bind
from fedmpi.core.parts import Round, Task
from fedmpi.core.units import choose, entries_of, flat, l1
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.methods.tasks.classification import classification
from fedmpi.plugins.spec import make
from fedmpi.run.devices import pick_device

# Of both sides.
RULE = {"momentum": 0.9, "weight_decay": 1e-3}
LR, CLASSES = 0.01, 10
# The most of the whole network's time, with half of the filters on a CPU.
LIMIT = 0.35


def measure(device, repeats, say, *, model, size, channels, batch_size, samples, rate):
    """Print milliseconds a step of both, and the time to find and build the smaller network.

    ``size`` is the side of the square images in pixels, ``samples`` are a client's, ``rate`` is the
    share of units to cut. Returns the exit code: 1 if half of the filters take more than LIMIT.
    """
    torch.set_num_threads(1)
    # As a run does.
    keep_freed_memory()
    device = pick_device(device, 0)
    shape = channels, size, size
    torch.manual_seed(0)
    network = make(catalog.MODELS, model, shape, CLASSES)
    network = network.to(device)
    layout, x, g = bind(network)
    sample = torch.randn(2, *shape)
    trace_s, structure = _timed(lambda: trace(network, layout, sample.to(device)))
    check(network, structure, x, sample.to(device))
    # Units of the least norm go.
    norms = l1(structure, x.cpu())
    chosen = choose(norms, rate)
    units = flat(structure, chosen)
    build_s, small = _built(network, structure, units, repeats)
    # Its values are those of the kept units.
    small.down(x)

    inputs, labels = drawn(samples, shape, CLASSES, device)
    whole = (network, layout, x, g)
    nets = (whole, small[:4])
    whole_ms, small_ms = _taken_ms(nets, inputs, labels, batch_size, repeats)

    values_share = len(small.support) / layout.num_values
    one_sample = sample[:1].to(device)
    flops_share = _flops_share(network, layout, structure, units, one_sample)
    say(f"{model} without {rate:g} of the units of each layer, images {shape}, batch {batch_size}:")
    say(f"  {'values':28} {values_share:9.4f} of the whole network's")
    say(f"  {'FLOPs':28} {flops_share:9.4f}")
    ratio = _say_times(whole_ms, small_ms, trace_s, build_s, say)
    # The limit is of one setting.
    is_bounded = rate == 0.5 and device.type == "cpu"
    return int(is_bounded and ratio > LIMIT)


def _say_times(whole_ms, small_ms, trace_s, build_s, say):
    """Print the lines of times; returns the median of the steps' ratios."""
    step_ms = statistics.median(small_ms)
    whole_step_ms = statistics.median(whole_ms)
    quotients = ratios(small_ms, whole_ms)
    ratio, least, most = summary(quotients)
    trace_ms = 1e3 * trace_s
    build_ms = 1e3 * build_s
    build_steps = build_ms / step_ms
    say(f"  {'milliseconds a step':28} {step_ms:9.4f} against {whole_step_ms:.4f}")
    say(f"  {'ratio, pair by pair':28} {ratio:9.4f} ({least:.4f} to {most:.4f}, "
        f"{len(quotients)} pairs)")
    say(f"  {'to find the units, once':28} {trace_ms:9.4f} ms")
    say(f"  {'to build a smaller network':28} {build_ms:9.4f} ms, "
        f"as long as {build_steps:.2f} of its steps")
    return ratio


def _built(network, structure, units, repeats):
    """``(least seconds, smaller network)``."""
    def build():
        return cut(network, structure, units)

    taken_s = []
    for _ in range(repeats):
        seconds, _ = _timed(build)
        taken_s.append(seconds)
    # One of its own: what was timed is dropped.
    return min(taken_s), build()


def _flops_share(network, layout, structure, units, sample):
    """FLOPs of the smaller network, as a share of the whole one's; ``sample`` is a batch of one."""
    per_sample = costs(network, layout, sample)
    whole = layout.full_mask()
    cut_mask = entries_of(structure, units)
    whole_flops = forward(layout, per_sample, whole)
    small_flops = forward(layout, per_sample, cut_mask)
    return small_flops / whole_flops


def _taken_ms(nets, inputs, labels, batch_size, repeats):
    """``[milliseconds a step]`` of each of ``nets``, one a repeat, turn by turn, without the
    warm-up."""
    # The last batch may be smaller.
    steps = -(-len(labels) // batch_size)
    taken_ms = [[] for _ in nets]
    for repeat in range(repeats + 1):
        for taken, net in zip(taken_ms, nets):
            task = _task(*net, inputs, labels, batch_size, repeat)
            seconds, _ = _timed(lambda: _trained(task))
            milliseconds = 1e3 * seconds
            taken.append(milliseconds / steps)
    return [taken[1:] for taken in taken_ms]


def _timed(work):
    """``(seconds, result of work)``: of this process's own time, unless a GPU works for it."""
    gpu = torch.cuda.is_initialized()
    # A CPU's other processes do not count; a GPU's work is no process's.
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
    return Task(
        model,
        layout,
        x,
        g,
        x.clone(),
        mask,
        trainable,
        inputs,
        labels,
        epochs=1,
        batch_size=batch_size,
        lr=LR,
        gen=np.random.default_rng(seed),
        now=Round(1, 1),
        optimiser=sgd(**RULE),
        objective=classification())


def _trained(task):
    """One epoch; the model is restored afterwards."""
    done = descend(task)
    task.x.copy_(task.base)
    return done
