"""Resident memory of the ranks that train: what it consists of, and that it does not grow. ``mpirun -n 3 fedmpi bench
memory``, or in one process, where the server's own is in it.

Rounds of the cross-device work with small clients, gradient growth, hence another mask again and again; between rounds
each worker tells its pages as the kernel counts them, by Linux's /proc.
"""

import os
import tempfile

import numpy as np
import torch

from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import made
from fedmpi.build.setup import dealt_out
from fedmpi.run import launch
from fedmpi.bench import round as works
from fedmpi.bench.reference import WithReference
from fedmpi.core.errors import FedError

OPTIONS = works.DEVICE | {"cohort": 10, "dataset": "synthetic:samples=7000,size=28", "train_samples": 6000,
                          "pruner": "rigl:sparsity=0.9,every=5"}
SETTLED = 0.1             # of the rounds, after which memory must not grow
KINDS = ("RssAnon", "RssFile", "RssShmem")


def pages(worker, what):
    """int64: KB resident that are the process's own, of files (libraries, the data), and shared; then the bytes of the
    model's vectors, of an update, and of the data that all ranks of a node map."""
    with open("/proc/self/status", encoding="utf-8") as file:
        found = dict(line.split(":", 1) for line in file)
    held = worker.received
    home = worker.home
    vectors = (home.x, home.g, held.live, held.base) if held else (home.x, home.g)
    data = sum(array.nbytes for array in worker.data.values())
    return np.array([int(found[kind].split()[0]) for kind in KINDS] + [
        sum(4 * len(each) for each in vectors), 4 * len(held.support) if held else 0, data])


def measure(model, rounds, limit_kb, say):
    """Print what a worker's memory consists of and how it grew; the exit code is 1 where that is more than the
    limit."""
    return launch.on_ranks(lambda connect: _play(connect(), model, rounds, limit_kb, say),
                           lambda: WithReference(launch.worker(), pages), say)


def _play(transport, model, rounds, limit_kb, say):
    torch.set_num_threads(1)
    if not os.path.exists("/proc/self/status"):
        raise FedError("resident memory is read from /proc, which this system lacks")
    options = OPTIONS | {"model": model}
    data = dealt_out(*made(options))[0]
    seen, settled = {}, max(1, round(SETTLED * rounds))
    with tempfile.TemporaryDirectory() as folder:
        arm = works.Arm(options, data.dataset, transport, os.path.join(folder, "run.h5"), say)
        transport.share({"kind": "data"}, shared_arrays(data))
        arm.set_up()
        seen[0] = _told(transport)
        for last in (settled, rounds):
            arm.play(last - arm.done)
            seen[last] = _told(transport)
    for rank, (own, files, shared, vectors, update, mapped) in sorted(seen[rounds].items()):
        say(f"rank {rank}: {own / 1e3:.1f} MB of its own, of these {vectors / 1e6:.3f} the model's vectors (weights, "
            f"gradient, received, live) and {update / 1e6:.3f} an update; {files / 1e3:.1f} MB of libraries; "
            f"{shared / 1e3:.1f} MB shared; the node's data are {mapped / 1e6:.1f} MB")
    growth = {rank: int(seen[rounds][rank][0] - seen[settled][rank][0]) for rank in seen[rounds]}
    first = {rank: int(seen[settled][rank][0] - seen[0][rank][0]) for rank in seen[rounds]}
    worst = max(growth, key=growth.get)
    say(f"memory: {growth[worst]:,} KB more in round {rounds} than in round {settled}, rank {worst}, the limit is "
        f"{limit_kb:,} KB; until round {settled} it was {max(first.values()):,} KB at most")
    return int(growth[worst] > limit_kb)


def _told(transport):
    jobs = [{"plain": "pages"}] * max(1, transport.size - 1)
    return {reply.rank: reply.arrays["plain"] for reply in transport.map(jobs)}
