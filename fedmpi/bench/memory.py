"""Resident memory of the training ranks: its parts, and its growth. ``mpirun -n 3 fedmpi bench
memory``, or in one process, then with the server's own memory.

The rounds are those of the cross-device work, with small clients and gradient growth: the mask
changes again and again. Between rounds each worker tells its pages as the kernel counts them, by
Linux's /proc.
"""

import os
import tempfile

import numpy as np
import torch

from fedmpi.bench import round as works
from fedmpi.bench.reference import WithReference, num_workers
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import made
from fedmpi.build.setup import dealt_out
from fedmpi.core.errors import FedError
from fedmpi.run import launch

OPTIONS = works.DEVICE | {
    "cohort": 10,
    "dataset": "synthetic:samples=7000,size=28",
    "train_samples": 6000,
    "pruner": "rigl:sparsity=0.9,every=5",
}
# After this share of the rounds memory must not grow.
SETTLED = 0.1
# Resident pages in /proc/self/status: the process's own, of mapped files, shared.
KINDS = ("RssAnon", "RssFile", "RssShmem")
STATUS = "/proc/self/status"


def pages(worker, what):
    """int64 (6,): resident KB of the process's own, of files (libraries, the data), and shared;
    then bytes of the model's vectors, of an update, and of the data mapped by all ranks of a
    node."""
    home = worker.home
    received = worker.received
    vectors = [home.x, home.g]
    update_bytes = 0
    if received:
        vectors += [received.trainable, received.base]
        # Values are float32.
        update_bytes = 4 * len(received.support)
    vector_bytes = sum(4 * len(vector) for vector in vectors)
    data_bytes = sum(array.nbytes for array in worker.data.values())
    return np.array([*_resident_kb(), vector_bytes, update_bytes, data_bytes])


def _resident_kb():
    """The process's KB of each of KINDS."""
    with open(STATUS, encoding="utf-8") as file:
        status = dict(line.split(":", 1) for line in file)
    resident_kb = []
    for kind in KINDS:
        number, _ = status[kind].split()
        resident_kb.append(int(number))
    return resident_kb


def measure(model, rounds, limit_kb, say):
    """Print the parts of a worker's memory and its growth; the exit code is 1 if it grows by more
    than ``limit_kb``."""
    def server(connect):
        return _play(connect(), model, rounds, limit_kb, say)

    def worker():
        return WithReference(launch.worker(), pages)

    return launch.on_ranks(server, worker, say)


def _play(transport, model, rounds, limit_kb, say):
    torch.set_num_threads(1)
    # Linux has it; other systems do not.
    if not os.path.exists(STATUS):
        raise FedError("resident memory is read from /proc, which this system lacks")
    settled = max(1, round(SETTLED * rounds))
    options = OPTIONS | {"model": model}
    pages_after = _pages_after(transport, options, (settled, rounds), say)
    at_start = pages_after[0]
    at_settled = pages_after[settled]
    at_end = pages_after[rounds]
    for rank, row in sorted(at_end.items()):
        say(_parts_line(rank, row))
    start_kb = _growth_kb(at_start, at_settled)
    most_start_kb = max(start_kb.values())
    growth_kb = _growth_kb(at_settled, at_end)
    worst = max(growth_kb, key=growth_kb.get)
    most_kb = growth_kb[worst]
    say(f"memory: {most_kb:,} KB more in round {rounds} than in round {settled}, rank {worst}, "
        f"the limit is {limit_kb:,} KB; until round {settled} it was {most_start_kb:,} KB at most")
    return int(most_kb > limit_kb)


def _growth_kb(before, after):
    """``{rank: KB}`` more of the process's own, column 0 of its pages."""
    growth_kb = {}
    for rank, row in after.items():
        more_kb = row[0] - before[rank][0]
        growth_kb[rank] = int(more_kb)
    return growth_kb


def _pages_after(transport, options, rounds, say):
    """``{round: {rank: pages}}`` after the set-up, round 0, and after each of ``rounds``."""
    data, _ = dealt_out(*made(options))
    pages_after = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.h5")
        arm = works.Arm(options, data.dataset, transport, path, say)
        transport.share({"kind": "data"}, shared_arrays(data))
        arm.set_up()
        pages_after[0] = _pages(transport)
        for t in rounds:
            arm.play(t - arm.done)
            pages_after[t] = _pages(transport)
    return pages_after


def _pages(transport):
    """``{rank: pages}`` of the workers."""
    job = {"plain": "pages"}
    jobs = [job] * num_workers(transport)
    pages_of = {}
    for reply in transport.map(jobs):
        pages_of[reply.rank] = reply.arrays["plain"]
    return pages_of


def _parts_line(rank, row):
    # The kernel counts in KB, vectors are counted in bytes.
    own, files, shared = row[:3] / 1e3
    vectors, update, data = row[3:] / 1e6
    # The data are among the files: the node's ranks map one copy.
    return (
        f"rank {rank}: {own:.1f} MB of its own, of these {vectors:.3f} the model's vectors "
        f"(weights, gradient, received, live) and {update:.3f} an update; {files:.1f} MB of "
        f"libraries; {shared:.1f} MB shared; the node's data are {data:.1f} MB")
