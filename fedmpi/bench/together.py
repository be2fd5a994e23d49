"""Rounds a second with G clients trained at once, against a plain loop over the clients.

The set-up is pfl-research's CIFAR-10 benchmark (2404.06430): a CNN of 1,626,442 weights with dropout, 1000 users of 50
samples, 50 of them a round, one epoch of plain SGD in batches of 10; on synthetic images if CIFAR-10 is missing. All
sides train the same clients of the same round in the same processes, turn by turn. The reference is a plain program
without us: for every client load the state dict and go through its batches with ``torch.optim.SGD``; it sends and
merges nothing. Rounds are whole ones, from drawing the cohort to the merged model, without evaluation.
"""

import statistics
import time

import numpy as np
import torch

from fedmpi.bench.ratios import ratios, turn
from fedmpi.bench.reference import WithReference, plain_step, slowest_s
from fedmpi.bench.round import BARE
from fedmpi.build.check import check
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import network_of
from fedmpi.build.setup import message, set_up
from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.dataset import inputs
from fedmpi.run import launch
from fedmpi.run.devices import pick_device
from fedmpi.server import loop, recruit

LR = 0.1
OPTIONS = BARE | {"evaluate_every": 10 ** 6, "lr": LR, "optimiser": "sgd"}


def plain_loop(worker, job):
    """(1,) seconds of training the job's ``clients`` in batches of ``batch_size``, one after the other, each from the
    same weights."""
    network = network_of({"model": job["model"], "seed": 0})
    model = network(worker.data["x_train"].shape[1:], worker.samples.classes)
    model = model.to(worker.device).train()
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = time.perf_counter()
    for client in job["clients"]:
        x, y = _samples(worker, client)
        model.load_state_dict(first)
        optimiser = torch.optim.SGD(model.parameters(), lr=LR)
        order = torch.randperm(len(y), device=worker.device)
        for batch in order.split(job["batch_size"]):
            plain_step(model, optimiser, x[batch], y[batch])
    if worker.device.type == "cuda":
        torch.cuda.synchronize(worker.device)
    return np.array([time.perf_counter() - start])


def _samples(worker, client):
    """``(inputs, labels)`` of a client, on the worker's device."""
    data = worker.data
    rows = slice(*data["offsets"][client: client + 2])
    images = data["x_train"][data["indices"][rows]]
    raw = torch.from_numpy(images).to(worker.device)
    x = inputs(raw, worker.samples.mean, worker.samples.std)
    y = torch.from_numpy(data["labels"][rows]).to(worker.device)
    return x, y


def measure(together, device, data_dir, repeats, say, **sizes):
    """Print rounds a second of each of ``together`` and of the loop; returns the exit code. ``sizes``: ``users``, each
    with ``samples``, ``cohort``, ``batch_size`` and ``model``."""
    return launch.on_ranks(lambda connect: _play(together, device, data_dir, repeats, say, connect, **sizes),
                           lambda: WithReference(launch.worker(), plain_loop), say)


def _play(together, device, data_dir, repeats, say, connect, *, users, samples, cohort, batch_size, model):
    torch.set_num_threads(1)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    options = OPTIONS | {"clients": users, "cohort": cohort, "batch_size": batch_size, "model": model, "device": device,
                         "data_dir": data_dir, "train_samples": users * samples, "together": max(together)}
    setup = _set_up(options, pick_device(device, 0), say)
    check(setup)
    options = setup.options
    run = setup.run._replace(transport=connect())
    run.transport.share({"kind": "data"}, shared_arrays(setup.data))
    state = loop.start(run, setup.network.first)
    run.transport.publish(*message(setup, state))
    rates = {"loop": []} | {f"G={G}": [] for G in together}
    # The first of each warms up.
    for t in range(1, repeats + 2):
        rates["loop"].append(1 / _loop_s(run, state, t, batch_size, model))
        for G in together:
            round_s = _round_s(run._replace(together=G), state, t)
            rates[f"G={G}"].append(1 / round_s)
        last = [f"{name} {taken[-1]:.3g}" for name, taken in rates.items()]
        say(f"{turn(t - 1)}: rounds/s " + ", ".join(last))
    workers = max(run.transport.size - 1, 1)
    where = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    say(f"{cohort} of {users} clients a round, {samples} samples each, batch {batch_size}, {options['model']} "
        f"({run.layout.num_parameters:,} weights), {options['dataset']}, {workers} worker{'s' * (workers > 1)} on "
        f"{where}; rounds a second (median of {repeats}): {_medians(rates)}")


def _loop_s(run, state, t, batch_size, model):
    """Seconds of round ``t``'s clients in the plain loop, by the slowest worker."""
    workers = max(run.transport.size - 1, 1)
    _, fleet = recruit.look(run, state["now"])
    _, cohort = recruit.sample(run, state, t, fleet)
    clients = cohort.tolist()
    jobs = []
    for worker in range(workers):
        job = {"clients": clients[worker::workers], "batch_size": batch_size, "model": model}
        jobs.append({"plain": job})
    return slowest_s(run.transport.map(jobs))


def _round_s(run, state, t):
    """Seconds of round ``t``."""
    begin = time.perf_counter()
    played = loop.run_round(run, state, t)
    loop.finish(played.evaluation)
    return time.perf_counter() - begin


def _medians(rates):
    """``loop 0.5; G=8 0.6 (1.20 times the loop, 1.1 to 1.3)``; ratios are taken turn by turn, without the warm-up."""
    rates = {name: taken[1:] for name, taken in rates.items()}
    reference = rates.pop("loop")
    texts = [f"loop {statistics.median(reference):.3g}"]
    for name, taken in rates.items():
        quotients = ratios(taken, reference)
        texts.append(f"{name} {statistics.median(taken):.3g} ({statistics.median(quotients):.2f} times the loop, "
                     f"{min(quotients):.2f} to {max(quotients):.2f})")
    return "; ".join(texts)


def _set_up(options, device, say):
    try:
        return set_up(options | {"dataset": "cifar10"}, device)
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
        synthetic = f"synthetic:samples={options['train_samples']},size=32,channels=3"
        return set_up(options | {"dataset": synthetic}, device)
