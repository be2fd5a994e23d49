"""Exact Shapley values of 10 clients on all workers, against one worker and against a loop over state dicts.

All three evaluate the same coalitions of the same round, turn by turn in one run: LeNet-5, 1000 validation samples of
28 x 28 pixels. The reference is what one would write without us: for every coalition add up the clients' state dicts
key by key, load the sum, run the validation set through the network in batches of 500. It runs on one worker, on a
sample of the coalitions, and is scaled up to all of them. Then some rounds are played in which GTG-Shapley observes,
for its cost and its agreement with the exact values.
"""

import copy
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import network_of
from fedmpi.build.setup import message, set_up
from fedmpi.run import launch
from fedmpi.server import exchange, fold, loop
from fedmpi.bench.reference import WithReference
from fedmpi.bench.round import BARE
from fedmpi.methods.datasets.dataset import inputs
from fedmpi.core.errors import DataError, UserError
from fedmpi.server.score import Utility
from fedmpi.core.parts import Cohort, Round
from fedmpi.read.report import spearman

CLIENTS = 10
SAMPLED = 64                  # coalitions that the reference evaluates
OPTIONS = BARE | {"train_samples": 10000, "validation": 0.1, "noise": "graded:high=0.9", "model": "lenet5",
                  "clients": CLIENTS, "batch_size": 32, "lr": 0.02, "contribution": "shapley"}


def plain_loop(worker, coalitions):
    """``(seconds, losses ...)`` of evaluating ``coalitions``, lists of clients, in a loop over state dicts."""
    model = network_of(OPTIONS)(worker.data["x_train"].shape[1:], worker.samples.classes)
    received, updates = worker.cohort.x, worker.cohort.updates
    base = _dict(worker.layout, received)
    clients = [_dict(worker.layout, received.index_add(0, updates.support, u)) for u in updates.U]
    data, server_shard = worker.data, len(worker.data["features"])
    rows = slice(*data["offsets"][server_shard: server_shard + 2])
    x = inputs(torch.from_numpy(data["x_train"][data["indices"][rows]]), worker.samples.mean, worker.samples.std)
    y = torch.from_numpy(data["labels"][rows])
    start = time.perf_counter()
    losses = [_plain_loss(model, base, [clients[n] for n in chosen], updates.n[chosen].tolist(), x, y)
              for chosen in coalitions]
    return np.array([time.perf_counter() - start] + losses)


def _dict(layout, vector):
    """The state dict of a model vector, every tensor in memory of its own."""
    return {slot.name: vector[slot.span].reshape(slot.shape).clone()
            for slot in layout.weights + layout.others + layout.buffers}


@torch.no_grad()
def _plain_loss(model, base, dicts, sizes, x, y):
    total = sum(sizes)
    mixed = {key: sum(n / total * each[key] for n, each in zip(sizes, dicts)) for key in base} if dicts else base
    model.load_state_dict(mixed)
    model.eval()
    loss = 0.0
    for start in range(0, len(y), 500):
        logits, wanted = model(x[start: start + 500]), y[start: start + 500]
        loss += float(F.cross_entropy(logits, wanted, reduction="sum"))
        (logits.argmax(dim=1) == wanted).sum().item()
    return loss / len(y)


def measure(data_dir, repeats, rounds, say):
    """Print the ratios; returns the exit code."""
    return launch.on_ranks(lambda connect: _play(data_dir, repeats, rounds, say, connect),
                           lambda: WithReference(launch.worker(), plain_loop), say)


def _play(data_dir, repeats, rounds, say, connect):
    torch.set_num_threads(1)
    options = OPTIONS | {"observe": [f"gtg-shapley:budget={(1 << CLIENTS) // 20}"], "data_dir": data_dir}
    setup = _set_up(options, say)
    transport = connect()
    if transport.size < 3:
        raise UserError("needs 2 workers or more: mpirun -n 3 fedmpi bench shapley")
    fed = setup.fed._replace(transport=transport)
    transport.share({"kind": "data"}, shared_arrays(setup.data))
    state = loop.start(fed, setup.network.first)
    transport.publish(*message(setup, state))
    _speed(fed, state, repeats, say)
    _agreement(fed, state, rounds, say)


def _speed(fed, state, repeats, say):
    """Seconds of all coalitions of round 1, by all workers, by one, and by the reference."""
    cohort, workers = _round(fed, state), len(fed.transport.workers)
    everything = torch.from_numpy((np.arange(1 << CLIENTS)[:, None] >> np.arange(CLIENTS) & 1).astype(bool))
    sampled = np.sort(np.random.default_rng(0).choice(1 << CLIENTS, SAMPLED, replace=False))
    one = alone(fed.transport)
    seconds = {"all": [], "one": [], "loop": []}
    for repeat in range(repeats + 1):                     # the first warms up
        for name, ranks in (("all", fed.transport), ("one", one)):
            utility = Utility(fed.transport, None, fed.block, cohort, state["strategy"])
            utility._load()                               # the exchange of updates counts for neither
            utility.transport = ranks
            start = time.perf_counter()
            values = utility(everything)
            seconds[name].append(time.perf_counter() - start)
        reply = next(one.map([{"plain": [np.flatnonzero(row).tolist() for row in everything[sampled].numpy()]}]))
        seconds["loop"].append(reply.arrays["plain"][0] * (1 << CLIENTS) / SAMPLED)
        worst = float(np.abs(reply.arrays["plain"][1:] + values[sampled].numpy()).max())
        say(f"{'warm-up' if not repeat else f'repeat {repeat}'}: {workers} workers {seconds['all'][-1]:.2f} s, one "
            f"{seconds['one'][-1]:.2f} s, loop over state dicts {seconds['loop'][-1]:.2f} s (losses within "
            f"{worst:.1e})")
    speedup = [b / a for a, b in zip(seconds["all"][1:], seconds["one"][1:])]
    gain = [b / a for a, b in zip(seconds["all"][1:], seconds["loop"][1:])]
    single = [b / a for a, b in zip(seconds["one"][1:], seconds["loop"][1:])]
    say(f"exact Shapley, {CLIENTS} clients, {1 << CLIENTS} coalitions, LeNet-5, 1000 validation samples: {workers} "
        f"workers against one {_spread(speedup)}; against a loop over state dicts {_spread(gain)}, one worker against "
        f"it {_spread(single)}")


def alone(transport):
    """The same transport, whose first worker takes all jobs."""
    one = copy.copy(transport)
    one.at_work = one.at_work[:1]
    return one


def _spread(ratios):
    return f"{statistics.median(ratios):.2f} times faster ({min(ratios):.2f} to {max(ratios):.2f})"


def _round(fed, state):
    """The ``Cohort`` of a first round that everybody trained."""
    clients, support = torch.arange(CLIENTS), fed.layout.support(state["mask"])
    _, asks = exchange.announce(fed, state, 1, clients)
    updates = fold.stack(fed, exchange.collect(fed, asks, support), support)
    return Cohort(clients, updates, Round(1, fed.rounds), fed.sizes / fed.sizes.sum(), state["x"], fed.layout)


def _agreement(fed, state, rounds, say):
    """GTG-Shapley beside the exact values in the same rounds."""
    calls, each, exact, sampled = [], [], 0, 0
    for t in range(1, rounds + 1):
        state, row, clients = loop.play_round(fed, state, t)
        calls.append(row["calls_gtg-shapley"] / (1 << CLIENTS))
        each.append(spearman(clients["contribution"], clients["score_gtg-shapley"]))
        exact, sampled = exact + clients["contribution"], sampled + clients["score_gtg-shapley"]
    say(f"GTG-Shapley in {rounds} rounds: {statistics.mean(calls):.4f} of the exact evaluations (at most "
        f"{max(calls):.4f}); Spearman with the exact values {statistics.mean(each):.3f} in a round (lowest "
        f"{min(each):.3f}, median {statistics.median(each):.3f}), {spearman(exact, sampled):.3f} over all rounds")


def _set_up(options, say):
    cpu = torch.device("cpu")
    try:
        return set_up(options, cpu)
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
        return set_up(options | {"dataset": "synthetic:samples=12000,size=28"}, cpu)
