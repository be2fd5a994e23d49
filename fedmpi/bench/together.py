"""Rounds a second with G clients trained at once, against a plain loop over the clients.

The set-up is that of the CIFAR-10 benchmark of pfl-research (2404.06430): a CNN of 1,626,442 weights with dropout, 1000
users of 50 samples, 50 of them a round, one epoch of plain SGD in batches of 10; shapes are synthetic where CIFAR-10 is
missing. All sides train the same clients of the same round in the same processes, turn by turn. The reference is what
one would write without us: for every client load the state dict and go through its batches with ``torch.optim.SGD``; it
sends and merges nothing. Rounds are whole ones, from drawing the cohort to the merged model, without evaluation.
"""

import statistics
import time

import numpy as np
import torch
from torch import nn

from fedmpi.build.check import check
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import network_of
from fedmpi.build.setup import message, set_up
from fedmpi.run import launch
from fedmpi.run.devices import pick_device
from fedmpi.server import loop, recruit
from fedmpi.bench.reference import WithReference
from fedmpi.bench.round import BARE
from fedmpi.methods.datasets.dataset import inputs
from fedmpi.core.errors import DataError

LR = 0.1
OPTIONS = BARE | {"evaluate_every": 10 ** 6, "lr": LR, "optimiser": "sgd"}


def plain_loop(worker, given):
    """Seconds of training ``clients`` in batches of ``batch_size``, one after the other, each from the same weights."""
    data = worker.data
    network = network_of({"model": given["model"], "seed": 0})
    model = network(data["x_train"].shape[1:], worker.samples.classes)
    model = model.to(worker.device).train()
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = time.perf_counter()
    for n in given["clients"]:
        rows = slice(*data["offsets"][n: n + 2])
        x = inputs(torch.from_numpy(data["x_train"][data["indices"][rows]]).to(worker.device),
            worker.samples.mean, worker.samples.std)
        y = torch.from_numpy(data["labels"][rows]).to(worker.device)
        model.load_state_dict(first)
        optimiser = torch.optim.SGD(model.parameters(), lr=LR)
        for batch in torch.randperm(len(y), device=worker.device).split(given["batch_size"]):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    if worker.device.type == "cuda":
        torch.cuda.synchronize(worker.device)
    return np.array([time.perf_counter() - start])


def measure(together, device, data_dir, repeats, say, **sizes):
    """Print rounds a second of each of ``together`` and of the loop; returns the exit code. ``sizes``: ``users``, each
    with ``samples``, ``cohort``, ``batch_size`` and ``model``."""
    return launch.on_ranks(lambda connect: _play(together, device, data_dir, repeats, say, connect, **sizes),
                           lambda: WithReference(launch.worker(), plain_loop), say)


def _play(together, device, data_dir, repeats, say, connect, *, users, samples, cohort, batch_size, model):
    torch.set_num_threads(1)
    device = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    options = OPTIONS | {"clients": users, "cohort": cohort, "batch_size": batch_size, "model": model, "device": device,
                         "data_dir": data_dir, "train_samples": users * samples, "together": max(together)}
    setup = _set_up(options, pick_device(device, 0), say)
    check(setup)
    options, fed = setup.options, setup.fed._replace(transport=connect())
    fed.transport.share({"kind": "data"}, shared_arrays(setup.data))
    state = loop.start(fed, setup.network.first)
    fed.transport.publish(*message(setup, state))
    workers, rates = max(fed.transport.size - 1, 1), {"loop": []} | {G: [] for G in together}
    for t in range(1, repeats + 2):                       # the first of each warms up
        clients = recruit.sample(fed, state, t, recruit.look(fed, state["now"])[1])[1].tolist()
        jobs = [{"plain": {"clients": clients[w::workers], "batch_size": batch_size, "model": model}}
                for w in range(workers)]
        rates["loop"].append(1 / max(float(reply.arrays["plain"][0]) for reply in fed.transport.map(jobs)))
        for G in together:
            begin = time.perf_counter()
            loop.finish(loop.play(fed._replace(together=G), state, t).evaluation)
            rates[G].append(1 / (time.perf_counter() - begin))
        say(f"{'warm-up' if t == 1 else f'repeat {t - 1}'}: rounds/s " + ", ".join(
            f"{'loop' if key == 'loop' else f'G={key}'} {each[-1]:.3g}" for key, each in rates.items()))
    where = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    say(f"{cohort} of {users} clients a round, {samples} samples each, batch {batch_size}, {options['model']} "
        f"({fed.layout.num_parameters:,} weights), {options['dataset']}, {workers} worker{'s' * (workers > 1)} on "
        f"{where}; rounds a second (median of {repeats}): {_medians(rates)}")


def _medians(rates):
    """``loop 0.5; G=8 0.6 (1.20 times the loop, 1.1 to 1.3)``; ratios are taken turn by turn."""
    loop = rates["loop"][1:]
    told = [f"loop {statistics.median(loop):.3g}"]
    for G, each in rates.items():
        if G != "loop":
            ratios = [a / b for a, b in zip(each[1:], loop)]
            told.append(f"G={G} {statistics.median(each[1:]):.3g} ({statistics.median(ratios):.2f} times the loop, "
                        f"{min(ratios):.2f} to {max(ratios):.2f})")
    return "; ".join(told)


def _set_up(options, device, say):
    try:
        return set_up(options | {"dataset": "cifar10"}, device)
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
        synthetic = f"synthetic:samples={options['train_samples']},size=32,channels=3"
        return set_up(options | {"dataset": synthetic}, device)
