"""Rounds a second with G clients trained at once, against a plain loop over the clients.

The set-up is pfl-research's CIFAR-10 benchmark (2404.06430): a CNN of 1,626,442 weights with
dropout, 1000 users of 50 samples, 50 of them a round, one epoch of plain SGD in batches of 10; on
synthetic images if CIFAR-10 is missing. All sides train the same clients of the same round in the
same processes, turn by turn. The reference is a plain program without us: for every client load the
state dict and go through its batches with ``torch.optim.SGD``; it sends and merges nothing. Rounds
are whole ones, from drawing the cohort to the merged model, without evaluation.
"""

import statistics
import time

import numpy as np
import torch

from fedmpi.bench.ratios import ratios, summary, turn
from fedmpi.bench.reference import (
    WithReference, device_name, num_workers, plain_step, shard, slowest_s, wait_for)
from fedmpi.bench.round import BARE
from fedmpi.build.check import check
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import network_of
from fedmpi.build.setup import message, set_up
from fedmpi.core.errors import DataError
from fedmpi.core.words import plural
from fedmpi.run import launch
from fedmpi.run.devices import pick_device
from fedmpi.server import recruit
from fedmpi.server.round import run_round
from fedmpi.server.run_state import initial_state
from fedmpi.server.slices import finish

LR = 0.1
# Without evaluation in the measured rounds.
OPTIONS = BARE | {"evaluate_every": 10 ** 6, "lr": LR, "optimiser": "sgd"}


def plain_loop(worker, job):
    """(1,) seconds of training the job's ``clients`` in batches of ``batch_size``, one after the
    other, each from the same weights."""
    network = network_of({"model": job["model"], "seed": 0})
    shape = worker.data["x_train"].shape[1:]
    model = network(shape, worker.samples.classes)
    model = model.to(worker.device)
    model.train()
    # Copies: the state dict's own tensors are trained.
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = time.perf_counter()
    for client in job["clients"]:
        x, y = shard(worker, client)
        model.load_state_dict(first)
        optimiser = torch.optim.SGD(model.parameters(), lr=LR)
        order = torch.randperm(len(y), device=worker.device)
        for batch in order.split(job["batch_size"]):
            plain_step(model, optimiser, x[batch], y[batch])
    wait_for(worker.device)
    seconds = time.perf_counter() - start
    return np.array([seconds])


def measure(together, device, data_dir, repeats, say, **sizes):
    """Print rounds a second of each of ``together`` and of the loop; returns the exit code.

    ``sizes``: ``users``, each with ``samples``, ``cohort``, ``batch_size`` and ``model``."""
    def server(connect):
        return _play(together, device, data_dir, repeats, say, connect, **sizes)

    def worker():
        return WithReference(launch.worker(), plain_loop)

    return launch.on_ranks(server, worker, say)


def _play(
        together, device, data_dir, repeats, say, connect, *,
        users, samples, cohort, batch_size, model):
    torch.set_num_threads(1)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    options = OPTIONS | {
        "clients": users,
        "cohort": cohort,
        "batch_size": batch_size,
        "model": model,
        "device": device,
        "data_dir": data_dir,
        "train_samples": users * samples,
        "together": max(together),
    }
    setup = _set_up(options, pick_device(device, 0), say)
    # A network may refuse to be trained side by side.
    check(setup)
    options = setup.options
    run = setup.run._replace(transport=connect())
    run.transport.share({"kind": "data"}, shared_arrays(setup.data))
    state = initial_state(run, setup.network.first)
    meta, arrays = message(setup, state)
    run.transport.publish(meta, arrays)
    rates = _rates(run, state, together, batch_size, model, repeats, say)
    workers = num_workers(run.transport)
    where = device_name(device)
    num_weights = run.layout.num_parameters
    on = f"{plural(workers, 'worker')} on {where}"
    say(f"{cohort} of {users} clients a round, {samples} samples each, batch {batch_size}, "
        f"{options['model']} ({num_weights:,} weights), {options['dataset']}, {on}; "
        f"rounds a second (median of {repeats}): {_medians(rates)}")


def _rates(run, state, together, batch_size, model, repeats, say):
    """``{"loop" or "G=8": [rounds a second]}``, a number a repeat and one more, the warm-up."""
    rates = {"loop": []}
    for G in together:
        rates[f"G={G}"] = []
    for t in range(1, repeats + 2):
        loop_s = _loop_s(run, state, t, batch_size, model)
        rates["loop"].append(1 / loop_s)
        for G in together:
            with_G = run._replace(together=G)
            round_s = _round_s(with_G, state, t)
            rates[f"G={G}"].append(1 / round_s)
        texts = []
        for name, taken in rates.items():
            texts.append(f"{name} {taken[-1]:.3g}")
        listed = ", ".join(texts)
        say(f"{turn(t - 1)}: rounds/s {listed}")
    return rates


def _loop_s(run, state, t, batch_size, model):
    """Seconds of round ``t``'s clients in the plain loop, by the slowest worker."""
    workers = num_workers(run.transport)
    _, fleet = recruit.look(run, state["now"])
    _, cohort = recruit.sample(run, state, t, fleet)
    clients = cohort.tolist()
    jobs = []
    for worker in range(workers):
        job = {
            "clients": clients[worker::workers],
            "batch_size": batch_size,
            "model": model,
        }
        jobs.append({"plain": job})
    replies = run.transport.map(jobs)
    return slowest_s(replies)


def _round_s(run, state, t):
    """Seconds of round ``t``."""
    begin = time.perf_counter()
    played = run_round(run, state, t)
    # In a run it goes on while the next clients train.
    finish(played.evaluation)
    return time.perf_counter() - begin


def _medians(rates):
    """``loop 0.5; G=8 0.6 (1.20 times the loop, 1.1 to 1.3)``; ratios are taken turn by turn,
    without the warm-up."""
    rates = {name: taken[1:] for name, taken in rates.items()}
    reference = rates.pop("loop")
    reference_rate = statistics.median(reference)
    texts = [f"loop {reference_rate:.3g}"]
    for name, taken in rates.items():
        rate = statistics.median(taken)
        quotients = ratios(taken, reference)
        times, least, most = summary(quotients)
        texts.append(
            f"{name} {rate:.3g} ({times:.2f} times the loop, {least:.2f} to {most:.2f})")
    return "; ".join(texts)


def _set_up(options, device, say):
    try:
        return set_up(options | {"dataset": "cifar10"}, device)
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
        num_samples = options["train_samples"]
        synthetic = f"synthetic:samples={num_samples},size=32,channels=3"
        return set_up(options | {"dataset": synthetic}, device)
