"""Exact Shapley values of 10 clients on all workers, against one worker and against a loop over state dicts.

All three evaluate the same coalitions of the same round, turn by turn in one run: LeNet-5, 1000 validation samples of
28 x 28 pixels. The reference is a plain program without us: for every coalition add up the clients' state dicts key by
key, load the sum, run the validation set through the network in batches of 500. It runs on one worker, on a sample of
the coalitions, and is scaled up to all of them. Then GTG-Shapley observes some rounds, for its cost and its agreement
with the exact values.
"""

import copy
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from fedmpi.bench.ratios import ratios, turn
from fedmpi.bench.reference import WithReference
from fedmpi.bench.round import BARE
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import network_of
from fedmpi.build.setup import message, set_up
from fedmpi.core.errors import DataError, UserError
from fedmpi.core.parts import Cohort, Round
from fedmpi.methods.datasets.dataset import inputs
from fedmpi.read.report import spearman
from fedmpi.run import launch
from fedmpi.server import exchange, fold, loop
from fedmpi.server.score import Utility

CLIENTS = 10
COALITIONS = 1 << CLIENTS
# Coalitions evaluated by the reference, and its batch size.
SAMPLED = 64
BATCH = 500
OPTIONS = BARE | {"train_samples": 10000, "validation": 0.1, "noise": "graded:high=0.9", "model": "lenet5",
                  "clients": CLIENTS, "batch_size": 32, "lr": 0.02, "contribution": "shapley"}


def plain_loop(worker, coalitions):
    """``(seconds, losses ...)`` of evaluating ``coalitions``, lists of clients, in a loop over state dicts."""
    model = network_of(OPTIONS)(worker.data["x_train"].shape[1:], worker.samples.classes)
    received = worker.cohort.x
    updates = worker.cohort.updates
    base = _dict(worker.layout, received)
    clients = []
    for update in updates.U:
        vector = received.index_add(0, updates.support, update)
        clients.append(_dict(worker.layout, vector))
    x, y = _validation_set(worker)
    start = time.perf_counter()
    losses = []
    for members in coalitions:
        dicts = [clients[n] for n in members]
        sizes = updates.n[members].tolist()
        losses.append(_plain_loss(model, base, dicts, sizes, x, y))
    return np.array([time.perf_counter() - start, *losses])


def _validation_set(worker):
    """``(inputs, labels)`` of the server's validation samples."""
    data = worker.data
    # They are the shard behind the clients'.
    shard = len(data["features"])
    rows = slice(*data["offsets"][shard: shard + 2])
    raw = torch.from_numpy(data["x_train"][data["indices"][rows]])
    x = inputs(raw, worker.samples.mean, worker.samples.std)
    return x, torch.from_numpy(data["labels"][rows])


def _dict(layout, vector):
    """The state dict of a model vector, every tensor in memory of its own."""
    return {slot.name: vector[slot.span].reshape(slot.shape).clone()
            for slot in layout.weights + layout.others + layout.buffers}


@torch.no_grad()
def _plain_loss(model, base, dicts, sizes, x, y):
    mixed = _mixed(dicts, sizes) if dicts else base
    model.load_state_dict(mixed)
    model.eval()
    loss = 0.0
    for start in range(0, len(y), BATCH):
        logits = model(x[start: start + BATCH])
        labels = y[start: start + BATCH]
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        # An evaluation counts the hits, too.
        (logits.argmax(dim=1) == labels).sum().item()
    return loss / len(y)


def _mixed(dicts, sizes):
    """The mean of the state dicts, weighted by ``sizes``."""
    total = sum(sizes)
    shares = [size / total for size in sizes]
    mixed = {}
    for key in dicts[0]:
        mixed[key] = sum(share * tensors[key] for share, tensors in zip(shares, dicts))
    return mixed


def measure(data_dir, repeats, rounds, say):
    """Print the ratios; returns the exit code."""
    return launch.on_ranks(lambda connect: _play(data_dir, repeats, rounds, say, connect),
                           lambda: WithReference(launch.worker(), plain_loop), say)


def _play(data_dir, repeats, rounds, say, connect):
    torch.set_num_threads(1)
    options = OPTIONS | {"observe": [f"gtg-shapley:budget={COALITIONS // 20}"], "data_dir": data_dir}
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
    """Print the seconds of all coalitions of round 1, by all workers, by one, and by the reference."""
    cohort = _round(fed, state)
    num_workers = len(fed.transport.workers)
    coalitions = _all_coalitions()
    sampled = np.sort(np.random.default_rng(0).choice(COALITIONS, SAMPLED, replace=False))
    one_worker = alone(fed.transport)
    by_all = []
    by_one = []
    by_loop = []
    for repeat in range(repeats + 1):
        all_s, _ = _timed(fed, state, cohort, coalitions, fed.transport)
        one_s, values = _timed(fed, state, cohort, coalitions, one_worker)
        loop_s, losses = _timed_loop(one_worker, coalitions[sampled])
        by_all.append(all_s)
        by_one.append(one_s)
        by_loop.append(loop_s)
        # A coalition's value is its loss with a minus.
        worst = float(np.abs(losses + values[sampled].numpy()).max())
        say(f"{turn(repeat)}: {num_workers} workers {all_s:.2f} s, one {one_s:.2f} s, loop over state dicts "
            f"{loop_s:.2f} s (losses within {worst:.1e})")
    speedup = _spread(ratios(by_one[1:], by_all[1:]))
    gain = _spread(ratios(by_loop[1:], by_all[1:]))
    single = _spread(ratios(by_loop[1:], by_one[1:]))
    say(f"exact Shapley, {CLIENTS} clients, {COALITIONS} coalitions, LeNet-5, 1000 validation samples: "
        f"{num_workers} workers against one {speedup}; against a loop over state dicts {gain}, one worker "
        f"against it {single}")


def _all_coalitions():
    """(COALITIONS, CLIENTS) bool; row i has client n if bit n of i is set."""
    numbers = np.arange(COALITIONS)[:, None]
    bits = numbers >> np.arange(CLIENTS) & 1
    return torch.from_numpy(bits.astype(bool))


def _timed(fed, state, cohort, coalitions, transport):
    """``(seconds, values)`` of the coalitions, evaluated by the workers of ``transport``."""
    utility = Utility(fed.transport, None, fed.block, cohort, state["strategy"])
    # The exchange of updates does not count.
    utility._load()
    utility.transport = transport
    start = time.perf_counter()
    values = utility(coalitions)
    return time.perf_counter() - start, values


def _timed_loop(transport, coalitions):
    """``(seconds, losses)`` of the loop over state dicts, the seconds scaled up to all coalitions."""
    members = [np.flatnonzero(row).tolist() for row in coalitions.numpy()]
    reply = next(transport.map([{"plain": members}]))
    seconds, *losses = reply.arrays["plain"]
    return seconds * COALITIONS / SAMPLED, np.array(losses)


def alone(transport):
    """The same transport; its first worker takes all jobs."""
    one = copy.copy(transport)
    one.active_ranks = one.active_ranks[:1]
    return one


def _spread(numbers):
    median = statistics.median(numbers)
    least = min(numbers)
    most = max(numbers)
    return f"{median:.2f} times faster ({least:.2f} to {most:.2f})"


def _round(fed, state):
    """The ``Cohort`` of a first round with all clients."""
    clients = torch.arange(CLIENTS)
    support = fed.layout.support(state["mask"])
    _, asks = exchange.announce(fed, state, 1, clients)
    replies = exchange.collect(fed, asks, support)
    updates = fold.stack(fed, replies, support)
    weights = fed.sizes / fed.sizes.sum()
    return Cohort(clients, updates, Round(1, fed.rounds), weights, state["x"], fed.layout)


def _agreement(fed, state, rounds, say):
    """Print GTG-Shapley beside the exact values in the same rounds."""
    shares, correlations = [], []
    exact_sum = sampled_sum = 0
    for t in range(1, rounds + 1):
        state, row, clients = loop.play_round(fed, state, t)
        exact = clients["contribution"]
        sampled = clients["score_gtg-shapley"]
        shares.append(row["calls_gtg-shapley"] / COALITIONS)
        correlations.append(spearman(exact, sampled))
        exact_sum = exact_sum + exact
        sampled_sum = sampled_sum + sampled
    say(f"GTG-Shapley in {rounds} rounds: {statistics.mean(shares):.4f} of the exact evaluations (at most "
        f"{max(shares):.4f}); Spearman with the exact values {statistics.mean(correlations):.3f} in a round (lowest "
        f"{min(correlations):.3f}, median {statistics.median(correlations):.3f}), "
        f"{spearman(exact_sum, sampled_sum):.3f} over all rounds")


def _set_up(options, say):
    cpu = torch.device("cpu")
    try:
        return set_up(options, cpu)
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
        return set_up(options | {"dataset": "synthetic:samples=12000,size=28"}, cpu)
