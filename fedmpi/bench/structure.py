"""A training step of a network without some of its filters and neurons against one of the whole.

Both sides train the same batches by ``fedmpi.compute.sgd.descend``, turn by turn. The filters of
least L1 norm are cut, the same share in every layer, as a client of FedMP's does.
"""

import statistics
import time

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.compute.sgd import descend
from fedmpi.compute.structure import check, cut
from fedmpi.compute.trace import trace
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.flops import costs, forward
from fedmpi.methods.tasks.classification import classification
from fedmpi.core.layout import bind
from fedmpi.core.parts import Round, Task
from fedmpi.core.units import choose, flat, held, l1
from fedmpi.methods.datasets.dataset import laid
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.run.devices import pick_device

RULE = {"momentum": 0.9, "weight_decay": 1e-3}
LR, CLASSES = 0.01, 10
LIMIT = 0.35     # of the whole network's time, at half of the filters on a CPU


def measure(device, repeats, say, *, model, size, channels, batch_size, samples, rate):
    """Print milliseconds a step of both, and what finding and building the smaller network takes.

    ``size`` is that of the square images, ``samples`` those of a client, ``rate`` the share of
    units that is cut. Returns the exit code: 1 where half of the filters take more than LIMIT.
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
    build_s = min(_timed(lambda: cut(network, structure, units))[0] for _ in range(repeats))
    small = cut(network, structure, units)
    small.down(x)

    inputs = laid(torch.randn(samples, *shape).to(device))
    labels = torch.randint(0, CLASSES, (samples,)).to(device)
    steps = -(-samples // batch_size)
    whole_ms, small_ms = [], []
    # The first pair warms up.
    for repeat in range(repeats + 1):
        for took, net in ((whole_ms, (network, layout, x, g)), (small_ms, small[:4])):
            task = _task(*net, inputs, labels, batch_size, repeat)
            took.append(1e3 * _timed(lambda: _trained(task))[0] / steps)
    ratios = [own / whole for own, whole in zip(small_ms[1:], whole_ms[1:])]
    ratio = statistics.median(ratios)

    entries = held(structure, units)
    per_sample = costs(network, layout, sample[:1].to(device))
    flops_share = (forward(layout, per_sample, entries)
                   / forward(layout, per_sample, layout.full_mask()))
    say(f"{model} without {rate:g} of the units of each layer, images {shape}, batch {batch_size}:")
    say(f"  {'values':28} {len(small.support) / layout.num_values:9.4f} of the whole network's")
    say(f"  {'FLOPs':28} {flops_share:9.4f}")
    say(f"  {'milliseconds a step':28} {statistics.median(small_ms[1:]):9.4f} against "
        f"{statistics.median(whole_ms[1:]):.4f}")
    say(f"  {'ratio, pair by pair':28} {ratio:9.4f} ({min(ratios):.4f} to {max(ratios):.4f}, "
        f"{repeats} pairs)")
    say(f"  {'to find the units, once':28} {1e3 * trace_s:9.4f} ms")
    say(f"  {'to build a smaller network':28} {1e3 * build_s:9.4f} ms, as long as "
        f"{1e3 * build_s / statistics.median(small_ms[1:]):.2f} of its steps")
    bounded = rate == 0.5 and device.type == "cpu"
    return int(bounded and ratio > LIMIT)


def _timed(work):
    """``(seconds, what work returned)``: of this process's own time, unless a GPU works for it."""
    gpu = torch.cuda.is_initialized()
    clock = time.perf_counter if gpu else time.process_time
    begin = clock()
    result = work()
    if gpu:
        torch.cuda.synchronize()
    return clock() - begin, result


def _task(model, layout, x, g, inputs, labels, batch_size, seed):
    """A client's training of one epoch."""
    mask, live = layout.full_mask().to(x.device), torch.ones(layout.R, device=x.device)
    return Task(model, layout, x, g, x.clone(), mask, live, inputs, labels, 1, batch_size, LR,
                np.random.default_rng(seed), Round(1, 1), optimiser=sgd(**RULE), objective=classification())


def _trained(task):
    """One epoch, after which the model is again what it was."""
    done = descend(task)
    task.x.copy_(task.base)
    return done
