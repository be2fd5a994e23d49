"""The speed of a round against the bare training loop.

Both sides train the same CNN on the same samples, batch 32, SGD with momentum, one thread a rank, turn by turn in one
run, in the same processes (so with the same allocator settings). The reference is what each worker would do without
us: ``torch.optim.SGD`` over tensors in memory, no messages.
"""

import statistics
import time

import numpy as np
import torch
from torch import nn

from fedmpi import assemble, launch, server
from fedmpi.bench.reference import USUAL, WithReference
from fedmpi.data.dataset import inputs
from fedmpi.errors import DataError

CLIENTS = 32
OPTIONS = USUAL | {"validation": 0.0, "noise": "none", "model": "cnn", "clients": CLIENTS, "cohort": 0, "rounds": 1000,
                   "local_epochs": 1, "batch_size": 32, "lr": 0.01, "strategy": "fedavg", "contribution": "size",
                   "observe": []}


def plain_loop(worker, model, clients):
    """``(steps, seconds)`` of training the samples of ``clients`` in a plain loop."""
    data, steps = worker.data, 0
    rows = np.concatenate([np.arange(data["offsets"][n], data["offsets"][n + 1]) for n in clients])
    x = inputs(torch.from_numpy(data["x_train"][data["indices"][rows]]), worker.mean, worker.std)
    y = torch.from_numpy(data["labels"][rows])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    start = time.perf_counter()
    for batch in torch.randperm(len(y)).split(32):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()
        steps += 1
    return np.array([steps, time.perf_counter() - start])


def measure(data_dir, samples, repeats, say):
    """Print steps a second of both, and their ratio; returns the exit code."""
    return launch.on_ranks(lambda connect: _play(data_dir, samples, repeats, say, connect),
                           lambda: WithReference(launch.worker(), plain_loop), say)


def _play(data_dir, samples, repeats, say, connect):
    torch.set_num_threads(1)
    data, options = _data(data_dir, samples, say)
    fed, x = assemble.server_parts(options, data, torch.device("cpu"))
    transport = connect()
    fed = fed._replace(transport=transport)
    transport.share({"kind": "data"}, assemble.shared_arrays(data))
    state = server.start(fed, x)
    transport.publish(*assemble.setup_message(data, fed, options, state))
    workers = max(transport.size - 1, 1)
    ours, whole, plain = [], [], []
    for t in range(1, repeats + 2):                       # the first of each warms up
        shares = [{"plain": list(range(w, CLIENTS, workers))} for w in range(workers)]
        loops = [reply.arrays["plain"] for reply in transport.map(shares)]
        state, row, rows = server.play_round(fed, state, t)
        steps = float(np.ceil(rows["samples"] / 32).sum())
        plain.append(sum(s / seconds for s, seconds in loops))
        ours.append(steps / (row["publish_s"] + row["train_s"]))
        whole.append(steps / row["round_s"])
        say(f"{'warm-up' if t == 1 else f'repeat {t - 1}'}: plain {plain[-1]:.1f}, round {ours[-1]:.1f} steps/s "
            f"(publish to last update), {whole[-1]:.1f} with merging and test evaluation; ratio {ours[-1] / plain[-1]:.3f}")
    ratios = [a / b for a, b in zip(ours[1:], plain[1:])]
    say(f"local SGD steps a second, dense FedAvg, {CLIENTS} clients on {workers} workers: {statistics.median(ours[1:]):.1f} "
        f"against {statistics.median(plain[1:]):.1f} of {workers} plain PyTorch loops: ratio "
        f"{statistics.median(ratios):.3f} (of {len(ratios)}: {min(ratios):.3f} to {max(ratios):.3f}); whole rounds "
        f"{statistics.median(a / b for a, b in zip(whole[1:], plain[1:])):.3f}")


def _data(data_dir, samples, say):
    options = OPTIONS | {"data_dir": data_dir, "train_samples": samples, "dataset": "fashion-mnist"}
    try:
        return assemble.federation(options), options
    except DataError as error:
        say(f"{error}; measuring on synthetic images of the same shape")
        options["dataset"] = f"synthetic:samples={samples},size=28"
        return assemble.federation(options), options
