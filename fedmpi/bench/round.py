"""A round against the bare training loop.

Both sides train the same network on as many samples, in as many steps, with SGD with momentum and weight decay, one
thread a rank, turn by turn in one run and in the same processes, hence with the same allocator settings. The reference
is what the workers would do without us: local steps of ``torch.optim.SGD`` over tensors in memory, no messages, no
merging, no evaluation. Ours is the wall time of whole rounds: model and updates on the wire, merge, test evaluation,
the row and the checkpoint in a run file. An evaluation that is due every ten rounds comes in the middle of those that
are timed together: after the last of them nobody trains beside it, which in a run happens once.
"""

import math
import os
import statistics
import tempfile
import time

import torch

from fedmpi.build import choose
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import made
from fedmpi.build.setup import dealt_out, message, set_up
from fedmpi.run import launch
from fedmpi.run.devices import pick_device
from fedmpi.server import loop, record
from fedmpi.bench.reference import WithReference, plain_loop
from fedmpi.core.errors import DataError
from fedmpi.build.options import DEFAULTS
from fedmpi.store import RunFile

BARE = DEFAULTS | {"validation": 0.0, "partition": "iid", "noise": "none", "strategy": "fedavg", "pruner": "dense",
                   "optimiser": "sgd:momentum=0.9,weight_decay=0.001",
                   "contribution": "size", "weighting": "size", "lr": 0.01, "local_epochs": 1, "device": "cpu",
                   "server_device": "cpu", "dataset": "fashion-mnist", "rounds": 1_000_000}
SILO = BARE | {"model": "cnn", "clients": 32, "batch_size": 32, "train_samples": 60_000}
SPARSE = {"strategy": "thesis", "pruner": "rigl:sparsity=0.9", "contribution": "cosine", "weighting": "relu"}
DEVICE = BARE | {"model": "cnn", "clients": 1000, "cohort": 50, "batch_size": 10, "train_samples": 60_000}
SELDOM = {"evaluate_every": 10}        # as cross-device benchmarks do, pfl-research's for one
WORKS = {                     # name: (options, the arms by what they change, rounds that are timed together)
    "cross-silo": (SILO, {"dense, float32": {}, "dense, bf16": {"precision": "bf16"},
                          "thesis, sparsity 0.9, cosine": SPARSE}, 2),
    "cross-device": (DEVICE, {"evaluated every round": {}, "every 10 rounds": SELDOM}, 10),
    "tiny": (DEVICE | {"model": "logistic", "cohort": 10}, {
        "one by one": {}, "one by one, every 10 rounds": SELDOM, "--together 0": {"together": 0},
        "--together 0, every 10 rounds": {"together": 0} | SELDOM}, 100),
}


def measure(name, data_dir, samples, repeats, device, say):
    """Print the wall time of a round of the work ``name`` against the reference, both on ``device``, ``cpu`` or
    ``cuda``; returns the exit code. ``samples``, where not 0, replaces the number of training samples."""
    return launch.on_ranks(lambda connect: _compare(name, data_dir, samples, repeats, device, say, connect),
                           lambda: WithReference(launch.worker(), plain_loop), say)


def _compare(name, data_dir, samples, repeats, device, say, connect):
    torch.set_num_threads(1)
    options, changes, rounds = WORKS[name]
    options = options | {"data_dir": data_dir, "device": device, "server_device": device}
    data, options = federation(options | ({"train_samples": samples} if samples else {}), say)
    transport = connect()
    with tempfile.TemporaryDirectory() as folder:
        arms = {arm: Arm(options | change, data.dataset, transport, os.path.join(folder, f"{number}.h5"), say)
                for number, (arm, change) in enumerate(changes.items())}
        transport.share({"kind": "data"}, shared_arrays(data))
        seconds = {arm: [] for arm in ("reference", *arms)}
        for repeat in range(repeats + 1):                  # the first warms up
            seconds["reference"].append(_reference(transport, data.dataset, options, rounds))
            for arm, played in arms.items():
                played.set_up()
                if not repeat and played.fed.every > 1:
                    played.play(played.fed.every // 2)
                seconds[arm].append(played.play(rounds))
            say(f"{'warm-up' if not repeat else f'repeat {repeat}'}: " + "; ".join(
                f"{arm} {taken[-1]:.4g} s" for arm, taken in seconds.items()))
    workers = max(transport.size - 1, 1)
    where = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    say(f"{name} on {where}: seconds a round with test evaluation and run file, {options['clients']} clients, "
        f"{options['cohort'] or options['clients']} a round, {len(data.indices):,} samples, {workers} worker(s); "
        f"the reference is {workers} plain PyTorch loop(s) of the same steps")
    for arm in arms:
        ratios = [a / b for a, b in zip(seconds[arm][1:], seconds["reference"][1:])]
        say(f"  {arm:30} {statistics.median(seconds[arm][1:]):8.4f} s against "
            f"{statistics.median(seconds['reference'][1:]):.4f} s: ratio {statistics.median(ratios):.3f} (of "
            f"{len(ratios)}: {min(ratios):.3f} to {max(ratios):.3f}); test accuracy {arms[arm].accuracy:.4f} after "
            f"round {arms[arm].done}")


def federation(options, say):
    """``(Federation, options)`` of Fashion-MNIST where it is there, else of synthetic images of its shape."""
    try:
        return dealt_out(*made(options))[0], options
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
        num = options["train_samples"]                     # and a test set of as many as Fashion-MNIST has beside them
        options = options | {"dataset": f"synthetic:samples={num * 7 // 6},size=28,test={num // 6}"}
        return dealt_out(*made(options))[0], options


def _reference(transport, dataset, options, rounds):
    """Seconds that all workers together need for a round's local steps, the slowest of them."""
    workers, cohort = max(transport.size - 1, 1), options["cohort"] or options["clients"]
    shares = [[n % options["clients"] for n in range(w, rounds * cohort, workers)] for w in range(workers)]
    what = {key: options[key] for key in ("model", "batch_size", "device")} | {"mean": dataset.mean, "std": dataset.std}
    jobs = [{"plain": what | {"clients": share}} for share in shares]
    return max(float(reply.arrays["plain"][1]) for reply in transport.map(jobs)) / rounds


class Arm:
    """One run of ours, played a few rounds at a time; the workers are set up for it anew each time."""

    def __init__(self, options, dataset, transport, path, say):
        device = pick_device(options["device"], 0)
        workers = max(transport.size - 1, 1)
        self.setup = choose.decided(set_up(options, device, dataset), device, workers, say)
        self.fed = self.setup.fed._replace(transport=transport)
        self.done, self.accuracy = 0, float("nan")
        self.state = loop.start(self.fed, self.setup.network.first)
        self.store = RunFile.create(path, {}, *record.columns(self.fed), {}, ([0], []))

    def set_up(self):
        self.fed.transport.publish(*message(self.setup, self.state))

    def play(self, rounds):
        """Seconds a round; the workers are set up for it."""
        fed, t = self.fed, self.done
        start = time.perf_counter()
        self.state = loop.simulate(fed, self.state, self.store, t + 1, t + rounds, on_round=self._note)
        self.done += rounds
        return (time.perf_counter() - start) / rounds

    def _note(self, row):
        self.accuracy = row["accuracy"] if math.isfinite(row["accuracy"]) else self.accuracy
