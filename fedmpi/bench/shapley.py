"""Exact Shapley values of 10 clients on all workers, against one worker and against a loop over
state dicts.

All three evaluate the same coalitions of the same round, turn by turn in one run: LeNet-5, 1000
validation samples of 28 x 28 pixels. The reference is a plain program without us: for every
coalition add up the clients' state dicts key by key, load the sum, run the validation set through
the network in batches of 500. It runs on one worker, on a sample of the coalitions, and is scaled
up to all of them. Then GTG-Shapley observes some rounds, for its cost and its agreement with the
exact values.
"""

import copy
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from fedmpi.bench.ratios import ratios, summary, turn
from fedmpi.bench.reference import WithReference, shard
from fedmpi.bench.round import BARE
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import network_of
from fedmpi.build.setup import message, set_up
from fedmpi.core.errors import DataError, UserError
from fedmpi.core.parts import Cohort, Round
from fedmpi.read.report import spearman
from fedmpi.run import launch
from fedmpi.server import exchange, fold, loop
from fedmpi.server.score import Utility

CLIENTS = 10
COALITIONS = 1 << CLIENTS
# Coalitions evaluated by the reference, and its batch size.
SAMPLED = 64
BATCH = 500
OPTIONS = BARE | {
    "train_samples": 10000,
    "validation": 0.1,
    "noise": "graded:high=0.9",
    "model": "lenet5",
    "clients": CLIENTS,
    "batch_size": 32,
    "lr": 0.02,
    "contribution": "shapley",
}


# ------------------------------------------------------------- the reference


def plain_loop(worker, coalitions):
    """``(seconds, losses ...)`` of evaluating ``coalitions``, lists of clients, in a loop over
    state dicts."""
    network = network_of(OPTIONS)
    shape = worker.data["x_train"].shape[1:]
    model = network(shape, worker.samples.classes)
    received = worker.cohort.x
    updates = worker.cohort.updates
    # The model without any update, for the empty coalition.
    base = _dict(worker.layout, received)
    clients = []
    for update in updates.U:
        vector = received.index_add(0, updates.support, update)
        client_dict = _dict(worker.layout, vector)
        clients.append(client_dict)
    # The server's validation samples are the shard behind the clients'.
    num_clients = len(worker.data["features"])
    x, y = shard(worker, num_clients)
    start = time.perf_counter()
    losses = []
    for members in coalitions:
        dicts = [clients[n] for n in members]
        sizes = updates.n[members].tolist()
        loss = _plain_loss(model, base, dicts, sizes, x, y)
        losses.append(loss)
    return np.array([time.perf_counter() - start, *losses])


def _dict(layout, vector):
    """The state dict of a model vector, every tensor in memory of its own."""
    tensors = {}
    for slot in layout.weights + layout.others + layout.buffers:
        view = vector[slot.span].reshape(slot.shape)
        tensors[slot.name] = view.clone()
    return tensors


@torch.no_grad()
def _plain_loss(model, base, dicts, sizes, x, y):
    # The empty coalition leaves the model as it was.
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
        # From 0: a first tensor would be added to in place.
        terms = (share * tensors[key] for share, tensors in zip(shares, dicts))
        mixed[key] = sum(terms)
    return mixed


# ------------------------------------------------------------- both sides


def measure(data_dir, repeats, rounds, say):
    """Print the ratios; returns the exit code."""
    def server(connect):
        return _play(data_dir, repeats, rounds, say, connect)

    def worker():
        return WithReference(launch.worker(), plain_loop)

    return launch.on_ranks(server, worker, say)


def _play(data_dir, repeats, rounds, say, connect):
    torch.set_num_threads(1)
    # GTG-Shapley may evaluate a twentieth of the coalitions.
    budget = COALITIONS // 20
    observed = [f"gtg-shapley:budget={budget}"]
    options = OPTIONS | {"observe": observed, "data_dir": data_dir}
    setup = _set_up(options, say)
    transport = connect()
    if transport.size < 3:
        raise UserError("needs 2 workers or more: mpirun -n 3 fedmpi bench shapley")
    run = setup.run._replace(transport=transport)
    transport.share({"kind": "data"}, shared_arrays(setup.data))
    state = loop.start(run, setup.network.first)
    meta, arrays = message(setup, state)
    transport.publish(meta, arrays)
    _speed(run, state, repeats, say)
    _agreement(run, state, rounds, say)


def _speed(run, state, repeats, say):
    """Print the seconds of all coalitions of round 1, by all workers, by one, and by the
    reference."""
    cohort = _round(run, state)
    num_workers = len(run.transport.workers)
    coalitions = _all_coalitions()
    gen = np.random.default_rng(0)
    sampled = gen.choice(COALITIONS, SAMPLED, replace=False)
    sampled = np.sort(sampled)
    one_worker = alone(run.transport)
    by_all = []
    by_one = []
    by_loop = []
    for repeat in range(repeats + 1):
        all_s, _ = _timed(run, state, cohort, coalitions, run.transport)
        one_s, values = _timed(run, state, cohort, coalitions, one_worker)
        loop_s, losses = _timed_loop(one_worker, coalitions[sampled])
        by_all.append(all_s)
        by_one.append(one_s)
        by_loop.append(loop_s)
        # A coalition's value is its loss with a minus.
        differences = losses + values[sampled].numpy()
        worst = float(np.abs(differences).max())
        say(f"{turn(repeat)}: {num_workers} workers {all_s:.2f} s, one {one_s:.2f} s, "
            f"loop over state dicts {loop_s:.2f} s (losses within {worst:.1e})")
    speedup = _times_faster(by_one, by_all)
    gain = _times_faster(by_loop, by_all)
    single = _times_faster(by_loop, by_one)
    say(f"exact Shapley, {CLIENTS} clients, {COALITIONS} coalitions, LeNet-5, 1000 validation "
        f"samples: {num_workers} workers against one {speedup}; against a loop over state dicts "
        f"{gain}, one worker against it {single}")


def _all_coalitions():
    """(COALITIONS, CLIENTS) bool; row i has client n if bit n of i is set."""
    numbers = np.arange(COALITIONS)[:, None]
    clients = np.arange(CLIENTS)
    bits = numbers >> clients & 1
    return torch.from_numpy(bits.astype(bool))


def _timed(run, state, cohort, coalitions, transport):
    """``(seconds, values)`` of the coalitions, evaluated by the workers of ``transport``."""
    utility = Utility(run.transport, None, run.block, cohort, state["strategy"])
    # The exchange of updates does not count.
    utility._load()
    utility.transport = transport
    start = time.perf_counter()
    values = utility(coalitions)
    return time.perf_counter() - start, values


def _timed_loop(transport, coalitions):
    """``(seconds, losses)`` of the loop over state dicts, the seconds scaled up to all
    coalitions."""
    members = [np.flatnonzero(row).tolist() for row in coalitions.numpy()]
    job = {"plain": members}
    replies = transport.map([job])
    reply = next(replies)
    seconds, *losses = reply.arrays["plain"]
    all_s = seconds * COALITIONS / SAMPLED
    return all_s, np.array(losses)


def alone(transport):
    """The same transport; its first worker takes all jobs."""
    one = copy.copy(transport)
    # Jobs go to the workers named here.
    one.active_ranks = one.active_ranks[:1]
    return one


def _times_faster(slow, fast):
    """The ratios of two lists of seconds in words, without the warm-up."""
    quotients = ratios(slow, fast)
    median, least, most = summary(quotients[1:])
    return f"{median:.2f} times faster ({least:.2f} to {most:.2f})"


def _round(run, state):
    """The ``Cohort`` of a first round with all clients."""
    clients = torch.arange(CLIENTS)
    support = run.layout.support(state["mask"])
    _, asks = exchange.announce(run, state, 1, clients)
    replies = exchange.collect(run, asks, support)
    return Cohort(
        clients=clients,
        updates=fold.stack(run, replies, support),
        now=Round(1, run.rounds),
        shares=run.sizes / run.sizes.sum(),
        x=state["x"],
        layout=run.layout)


def _agreement(run, state, rounds, say):
    """Print GTG-Shapley beside the exact values in the same rounds."""
    shares, correlations = [], []
    exact_sum = sampled_sum = 0
    for t in range(1, rounds + 1):
        state, row, clients = loop.evaluated_round(run, state, t)
        exact = clients["contribution"]
        sampled = clients["score_gtg-shapley"]
        calls = row["calls_gtg-shapley"]
        shares.append(calls / COALITIONS)
        correlations.append(spearman(exact, sampled))
        # Not in place: the arrays belong to the round.
        exact_sum = exact_sum + exact
        sampled_sum = sampled_sum + sampled
    share = statistics.mean(shares)
    most = max(shares)
    mean = statistics.mean(correlations)
    median, lowest, _ = summary(correlations)
    overall = spearman(exact_sum, sampled_sum)
    say(f"GTG-Shapley in {rounds} rounds: {share:.4f} of the exact evaluations (at most "
        f"{most:.4f}); Spearman with the exact values {mean:.3f} in a round (lowest "
        f"{lowest:.3f}, median {median:.3f}), {overall:.3f} over all rounds")


def _set_up(options, say):
    cpu = torch.device("cpu")
    try:
        return set_up(options, cpu)
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
        return set_up(options | {"dataset": "synthetic:samples=12000,size=28"}, cpu)
