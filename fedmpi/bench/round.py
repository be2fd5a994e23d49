"""A round against the bare training loop.

Both sides train the same network on as many samples, in as many steps, with SGD with momentum and
weight decay, one thread a rank, turn by turn in one run and in the same processes, hence with the
same allocator settings. The reference is the workers' part without us: local steps of
``torch.optim.SGD`` over tensors in memory, no messages, no merging, no evaluation. Ours is the wall
time of whole rounds: model and updates on the wire, merge, test evaluation, the row and the
checkpoint in a run file. An evaluation every ten rounds comes in the middle of the rounds timed
together: after the last of them nobody trains beside it, which in a run happens once.
"""

import math
import os
import statistics
import tempfile
import time

import torch

from fedmpi.bench.ratios import ratios, spread, turn
from fedmpi.bench.reference import (
    WithReference, device_name, num_workers, plain_loop, slowest_s)
from fedmpi.build import choose
from fedmpi.build.federation import shared_arrays
from fedmpi.build.options import DEFAULTS
from fedmpi.build.parts import made
from fedmpi.build.setup import dealt_out, message, set_up
from fedmpi.core.errors import DataError
from fedmpi.core.words import plural
from fedmpi.run import launch
from fedmpi.run.devices import pick_device
from fedmpi.server import loop, record
from fedmpi.server.run_state import initial_state
from fedmpi.store import RunFile

# Options of all works; the rounds never end a measurement.
BARE = DEFAULTS | {
    "validation": 0.0,
    "partition": "iid",
    "noise": "none",
    "strategy": "fedavg",
    "pruner": "dense",
    "optimiser": "sgd:momentum=0.9,weight_decay=0.001",
    "contribution": "size",
    "weighting": "size",
    "lr": 0.01,
    "local_epochs": 1,
    "device": "cpu",
    "server_device": "cpu",
    "dataset": "fashion-mnist",
    "rounds": 1_000_000,
}
SILO = BARE | {
    "model": "cnn",
    "clients": 32,
    "batch_size": 32,
    "train_samples": 60_000,
}
DEVICE = BARE | {
    "model": "cnn",
    "clients": 1000,
    "cohort": 50,
    "batch_size": 10,
    "train_samples": 60_000,
}
TINY = DEVICE | {"model": "logistic", "cohort": 10}
# Changes of single arms.
SPARSE = {
    "strategy": "thesis",
    "pruner": "rigl:sparsity=0.9",
    "contribution": "cosine",
    "weighting": "relu",
}
TOGETHER = {"together": 0}
# As in cross-device benchmarks, pfl-research's for one.
SELDOM = {"evaluate_every": 10}
SILO_ARMS = {
    "dense, float32": {},
    "dense, bf16": {"precision": "bf16"},
    "thesis, sparsity 0.9, cosine": SPARSE,
}
DEVICE_ARMS = {
    "evaluated every round": {},
    "every 10 rounds": SELDOM,
}
TINY_ARMS = {
    "one by one": {},
    "one by one, every 10 rounds": SELDOM,
    "--together 0": TOGETHER,
    "--together 0, every 10 rounds": TOGETHER | SELDOM,
}
# {name: (options, the arms by their changes, rounds timed together)}
WORKS = {
    "cross-silo": (SILO, SILO_ARMS, 2),
    "cross-device": (DEVICE, DEVICE_ARMS, 10),
    "tiny": (TINY, TINY_ARMS, 100),
}


def measure(name, data_dir, samples, repeats, device, say):
    """Print the wall time of a round of the work ``name`` against the reference, both on
    ``device``, ``cpu`` or ``cuda``; returns the exit code.

    ``samples``, unless 0, replaces the number of training samples."""
    def server(connect):
        return _compare(
            name,
            data_dir,
            samples,
            repeats,
            device,
            say,
            connect)

    def worker():
        return WithReference(launch.worker(), plain_loop)

    return launch.on_ranks(server, worker, say)


def _compare(name, data_dir, samples, repeats, device, say, connect):
    torch.set_num_threads(1)
    options, changes, rounds = WORKS[name]
    options = dict(options)
    options["data_dir"] = data_dir
    options["device"] = device
    options["server_device"] = device
    if samples:
        options["train_samples"] = samples
    data, options = federation(options, say)
    transport = connect()
    with tempfile.TemporaryDirectory() as folder:
        arms = {}
        for number, (arm_name, change) in enumerate(changes.items()):
            path = os.path.join(folder, f"{number}.h5")
            own_options = options | change
            arms[arm_name] = Arm(own_options, data.dataset, transport, path, say)
        transport.share({"kind": "data"}, shared_arrays(data))
        seconds = _seconds(
            transport,
            data.dataset,
            options,
            arms,
            rounds,
            repeats,
            say)
    workers = num_workers(transport)
    say(_head(name, device, options, len(data.indices), workers))
    reference = seconds.pop("reference")
    for arm_name, taken in seconds.items():
        say(_arm_line(arm_name, arms[arm_name], taken, reference))


def _arm_line(name, arm, taken, reference):
    own_s = statistics.median(taken)
    reference_s = statistics.median(reference)
    ratio = spread(ratios(taken, reference))
    return (
        f"  {name:30} {own_s:8.4f} s against {reference_s:.4f} s: ratio {ratio}; "
        f"test accuracy {arm.accuracy:.4f} after round {arm.done}")


def _seconds(transport, dataset, options, arms, rounds, repeats, say):
    """``{arm or "reference": [seconds a round]}``, a number a repeat, without the warm-up."""
    seconds = {arm: [] for arm in ("reference", *arms)}
    for repeat in range(repeats + 1):
        reference_s = _reference(transport, dataset, options, rounds)
        seconds["reference"].append(reference_s)
        for name, arm in arms.items():
            arm.set_up()
            if repeat == 0 and arm.run.evaluate_every > 1:
                # So that evaluations come in the middle of the timed rounds.
                arm.play(arm.run.evaluate_every // 2)
            round_s = arm.play(rounds)
            seconds[name].append(round_s)
        texts = []
        for name, taken in seconds.items():
            texts.append(f"{name} {taken[-1]:.4g} s")
        listed = "; ".join(texts)
        say(f"{turn(repeat)}: {listed}")
    # The first of each is the warm-up.
    return {name: taken[1:] for name, taken in seconds.items()}


def _head(name, device, options, num_samples, workers):
    where = device_name(device)
    # A cohort of 0 is all clients.
    cohort = options["cohort"] or options["clients"]
    return (
        f"{name} on {where}: seconds a round with test evaluation and run file, "
        f"{options['clients']} clients, {cohort} a round, {num_samples:,} samples, "
        f"{plural(workers, 'worker')}; the reference is "
        f"{plural(workers, 'plain PyTorch loop')} of the same steps")


def federation(options, say):
    """``(Federation, options)`` of Fashion-MNIST if its files are present, else of synthetic images
    of its shape."""
    try:
        data, _ = dealt_out(*made(options))
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
    else:
        return data, options
    # With a test set in Fashion-MNIST's proportion.
    num_train = options["train_samples"]
    num_test = num_train // 6
    num_all = num_train * 7 // 6
    dataset = f"synthetic:samples={num_all},size=28,test={num_test}"
    options = options | {"dataset": dataset}
    data, _ = dealt_out(*made(options))
    return data, options


def _reference(transport, dataset, options, rounds):
    """Seconds a round of the local steps alone, by the slowest worker."""
    workers = num_workers(transport)
    num_clients = options["clients"]
    cohort = options["cohort"] or num_clients
    task = {
        "model": options["model"],
        "batch_size": options["batch_size"],
        "device": options["device"],
        "mean": dataset.mean,
        "std": dataset.std,
    }
    jobs = []
    for worker in range(workers):
        # Every worker has as many clients, or one less.
        turns = range(worker, rounds * cohort, workers)
        clients = [number % num_clients for number in turns]
        jobs.append({"plain": task | {"clients": clients}})
    replies = transport.map(jobs)
    return slowest_s(replies, column=1) / rounds


class Arm:
    """One run of ours, played a few rounds at a time; the workers are set up for it anew each
    time."""

    def __init__(self, options, dataset, transport, path, say):
        device = pick_device(options["device"], 0)
        workers = num_workers(transport)
        setup = set_up(options, device, dataset)
        setup = choose.decided(setup, device, workers, say)
        run = setup.run._replace(transport=transport)
        rounds, clients = record.columns(run)
        self.setup = setup
        self.run = run
        self.done = 0
        self.accuracy = math.nan
        self.state = initial_state(run, setup.network.first)
        # Nobody looks at its population and partition.
        population, partition = {}, ([0], [])
        self.store = RunFile.create(path, {}, rounds, clients, population, partition)

    def set_up(self):
        meta, arrays = message(self.setup, self.state)
        self.run.transport.publish(meta, arrays)

    def play(self, rounds):
        """Seconds a round; the workers must be set up for it."""
        first = self.done + 1
        last = self.done + rounds
        start = time.perf_counter()
        self.state = loop.simulate(
            self.run,
            self.state,
            self.store,
            first,
            last,
            on_round=self._note)
        self.done = last
        seconds = time.perf_counter() - start
        return seconds / rounds

    def _note(self, row):
        # NaN in rounds without evaluation; a task may have no accuracy.
        accuracy = row.get("accuracy", math.nan)
        if math.isfinite(accuracy):
            self.accuracy = accuracy
