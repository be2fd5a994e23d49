"""How many clients a worker trains at once, where nobody says: the fastest of a few, by a short timing.

What is chosen becomes part of the run's options, since another number gives other bits. On a CPU that is 8 to 50 for
models of few weights, and 1 for most others.
"""

import time

import torch

from fedmpi.build.assemble import apart, bound, sample, targets
from fedmpi.build.named import augmentation, model, objective
from fedmpi.catalog import OPTIMISERS, SCHEDULES, STRATEGIES, make
from fedmpi.compute.graphs import recorder
from fedmpi.compute.sgd import casting, train
from fedmpi.core.parts import Round, Task
from fedmpi.core.rng import Purpose, stream
from fedmpi.compute.stacked import stacked

SIZES = (8, 25, 50)           # and a worker's whole share of a round, where that is no larger
STEPS = 4                     # of each client
GAIN = 1.2                    # times as fast as one by one: less is not worth other bits
REPEATS = 3


def together(options, fed_data, device, workers, say):
    """1, or the fastest of SIZES that leaves work for all ``workers``; ``say(line)`` tells what was measured on
    ``device``."""
    why = apart(options, fed_data)
    if why:
        say(f"--together 0: {why}: one by one")
        return 1
    share = -(-(options["cohort"] or options["clients"]) // workers)
    timed = timing(options, fed_data, device)
    best, told = 1, {1: timed(1, 0)[0]}
    for G in sorted(G for G in {*SIZES, share} if 1 < G <= min(share, max(SIZES))):
        told[1], told[G] = timed(G, told[1])
        if told[G] > told[best] and best > 1 or told[G] > GAIN * told[1]:
            break
        if told[G] < told[best] / (GAIN if best == 1 else 1):
            best = G
    say(f"--together 0: {best} on {device} (milliseconds a client of {STEPS} steps: "
        + ", ".join(f"{1e3 * seconds:.3g} for {G}" for G, seconds in told.items()) + ")")
    return best


def timing(options, fed_data, device):
    """``timed(G, before) -> (one, side)``: least seconds a client of training one by one, ``before`` counted in unless
    0, and of training G at once, turn by turn; on test samples."""
    network = model(options, fed_data.shape, fed_data.outputs).to(device)
    layout, x = bound(options, fed_data, network)
    g = torch.zeros(layout.R, device=device)
    n, base = STEPS * options["batch_size"], x.clone()
    inputs, labels, task = sample(fed_data, n).to(device), targets(fed_data, n).to(device), objective(options)
    strategy, recorded = make(STRATEGIES, options["strategy"]), recorder(network, device, task.loss)
    live, mask = torch.ones(layout.R, device=device), layout.full_mask().to(device)
    wide = stacked(network, layout, recorded)

    how = {"casting": casting(options["precision"], device), "recorder": recorded, "objective": task,
           "optimiser": make(OPTIMISERS, options["optimiser"]), "rates": make(SCHEDULES, options["schedule"]),
           "clip_norm": options["clip_norm"], "augment": augmentation(options)}

    def tasks(count):
        return [Task(network, layout, x, g, base, mask, live, inputs, labels, 1, options["batch_size"], options["lr"],
                     stream(0, Purpose.TRAIN, client), Round(1, 1), **how)
                for client in range(count)]

    def seconds(work, count):
        given = tasks(count)
        start = time.perf_counter()
        work(given)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / count

    def alone(given):
        for task in given:
            x.copy_(base)
            train(strategy.local, task)

    def timed(G, before):
        pairs = [(seconds(alone, 4), seconds(lambda given: wide(given, strategy.local), G) if G > 1 else 0.0)
                 for _ in range(REPEATS + 1)][1:]                      # the first warms up
        one, side = (min(each) for each in zip(*pairs))
        return min(one, before or one), side

    return timed
