"""``--together 0``: the fastest number of clients that a worker trains at once, by a short timing.

The number becomes part of the run's options, since another one gives other bits. On a CPU it is 8
to 50 for models of few weights, and 1 for most others.
"""

import math
import time

import torch

from fedmpi.build.check import apart
from fedmpi.build.network import bound, sample, targets
from fedmpi.compute.augment import joined
from fedmpi.compute.graphs import recorder
from fedmpi.compute.sgd import casting, train
from fedmpi.compute.stacked import stacked
from fedmpi.core.parts import Round, Task
from fedmpi.core.rng import Purpose, stream

# Numbers of clients to try. A worker's whole share of a round is tried, too, unless it is larger.
SIZES = (8, 25, 50)
STEPS = 4                     # of each client
ALONE = 4                     # clients in the timing one by one
# Training side by side must be so many times as fast: less is not worth other bits.
GAIN = 1.2
REPEATS = 3


def decided(setup, device, workers, say):
    """The ``Setup`` with ``--together 0`` replaced by the fastest number on ``device``, the
    clients' device."""
    if setup.options["together"]:
        return setup
    G = together(setup, device, workers, say)
    return setup._replace(
        options=setup.options | {"together": G},
        run=setup.run._replace(together=G))


def together(setup, device, workers, say):
    """1, or the fastest of SIZES that leaves work for all ``workers``. ``say(line)`` takes the
    times on ``device``."""
    options, parts, data, network, *_ = setup
    why = apart(options, parts, data, network)
    if why:
        say(f"--together 0: {why}: one by one")
        return 1
    cohort = options["cohort"] or options["clients"]
    share = math.ceil(cohort / workers)
    timed = timing(options, parts, data, device)
    best, seconds = _fastest(timed, share)
    times = _times_text(seconds)
    say(f"--together 0: {best} on {device} (milliseconds a client of {STEPS} steps: {times})")
    return best


def _times_text(seconds):
    """``1.5 for 1, 0.8 for 8``: milliseconds a client, for each number of clients at once."""
    texts = []
    for G, client_s in seconds.items():
        texts.append(f"{1e3 * client_s:.3g} for {G}")
    return ", ".join(texts)


def _fastest(timed, share):
    """``(best, {G: seconds a client})`` of the sizes up to a worker's ``share`` of a round.

    Once a size is slower than a smaller one, larger ones are not tried.
    """
    alone_s, _ = timed(1, 0)
    best = 1
    seconds = {1: alone_s}
    for G in _sizes(share):
        alone_s, client_s = timed(G, alone_s)
        seconds[1], seconds[G] = alone_s, client_s
        if client_s > GAIN * alone_s:
            break
        if best > 1 and client_s > seconds[best]:
            break
        needed = GAIN if best == 1 else 1
        if client_s < seconds[best] / needed:
            best = G
    return best, seconds


def _sizes(share):
    """The numbers of clients to try, from the least."""
    most = min(share, max(SIZES))
    sizes = {*SIZES, share}
    return sorted(G for G in sizes if 1 < G <= most)


def timing(options, parts, data, device):
    """``timed(G, before) -> (one, side)``: seconds a client of training one by one, and of training
    G at once.

    Both are the least of REPEATS, measured in turns on test samples. ``before`` is an earlier
    ``one``, 0 for none; the lesser of the two counts.
    """
    tasks, wide = _tasks(options, parts, data, device)

    def seconds(work, count):
        clients = tasks(count)
        start = time.perf_counter()
        work(clients)
        if device.type == "cuda":
            # Kernels run on after the call that starts them.
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / count

    def alone(clients):
        for task in clients:
            # Every client starts from the published model.
            task.x.copy_(task.base)
            train(parts.strategy.local, task)

    def at_once(clients):
        wide(clients, parts.strategy.local)

    def pair(G):
        one = seconds(alone, ALONE)
        if G == 1:
            return one, 0.0
        return one, seconds(at_once, G)

    def timed(G, before):
        # Warm up.
        pair(G)
        pairs = [pair(G) for _ in range(REPEATS)]
        ones, sides = zip(*pairs)
        one = min(ones)
        return min(one, before or one), min(sides)

    return timed


def _tasks(options, parts, data, device):
    """``(tasks(count), wide)``: the tasks of ``count`` clients, and a function for all at once.

    Their network is a copy for the timing, laid out like the run's.
    """
    model = parts.network(data.shape, data.outputs).to(device)
    layout, x = bound(options, data, model)
    g = torch.zeros(layout.R, device=device)
    base = x.clone()
    n = STEPS * options["batch_size"]
    inputs = sample(data, n).to(device)
    labels = targets(data, n).to(device)
    trainable = torch.ones(layout.R, device=device)
    mask = layout.full_mask().to(device)
    recorded = recorder(model, device, parts.task.loss)
    cast = casting(options["precision"], device)
    augment = joined(parts.augmentations)

    def task(client):
        return Task(
            model, layout, x, g, base, mask, trainable, inputs, labels,
            epochs=1,
            batch_size=options["batch_size"],
            lr=options["lr"],
            gen=stream(0, Purpose.TRAIN, client),
            now=Round(1, 1),
            casting=cast,
            recorder=recorded,
            optimiser=parts.optimiser,
            rates=parts.schedule,
            clip_norm=options["clip_norm"],
            accumulate=options["accumulate"],
            augment=augment,
            objective=parts.task)

    def tasks(count):
        return [task(client) for client in range(count)]

    return tasks, stacked(model, layout, recorded)
