"""The memory of a worker by the weight of a large dense model, under mpirun."""

import pathlib
import re
import subprocess
import time

import pytest

from conftest import environment
from fedmpi.store.compare import verify

MODEL = '''
from torch import nn


def wide(shape, outputs, width: int = 8, depth: int = 1):
    layers = [nn.Flatten(), nn.Linear(64, width, bias=False)]
    for _ in range(depth):
        layers += [nn.ReLU(), nn.Linear(width, width, bias=False)]
    # The bias is padded in the vector.
    return nn.Sequential(*layers, nn.Linear(width, outputs))
'''
WIDTH, DEPTH = 2048, 5
P = 64 * WIDTH + DEPTH * WIDTH * WIDTH + 10 * WIDTH + 16
TRAIN = ("train", "--dataset", "synthetic:samples=40,size=8", "--clients", 4, "--partition", "iid", "--batch-size", 4,
         "--local-steps", 1, "--rounds", 2, "--optimiser", "adamw", "--lr", 0.001, "--pruner", "dense",
         "--validation", 0, "--device", "cpu", "--strategy", "diloco:inner=reset")
# The most bytes a weight: a worker's own, and shared by the workers of a node. The latter are the received model, 4,
# the sums of updates, 8, and a message on its way, 4.
OWN, SHARED = 17, 16
# What allocators round up, and pages that the constant part does not touch in each run.
SLACK = 24 << 20


def children(root):
    """``{rank: pid}`` of the ranks below process ``root``."""
    family, ranks = {root}, {}
    for pid in sorted(int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*")):
        try:
            parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if parent not in family:
                continue
            family.add(pid)
            variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            rank = re.search(rb"\0(?:PMI|OMPI_COMM_WORLD)_RANK=(\d+)", variables)
        except OSError:                        # it has just ended
            continue
        if rank and parent not in ranks.values():
            ranks[int(rank[1])] = pid
    return ranks


def resident(pid):
    """``{kind: bytes}`` of a process's own pages and of shared ones."""
    try:
        rows = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
        return {kind: 1024 * int(rows[kind].split()[0]) for kind in ("RssAnon", "RssShmem")}
    except (OSError, KeyError):                # it has just ended
        return {}


def peaks(argv, folder):
    """``{rank: {kind: bytes}}``: the largest numbers of ``resident`` while ``argv`` runs."""
    seen, ranks, looked = {}, {}, 0.0
    with subprocess.Popen(argv, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:
        while process.poll() is None:
            if time.monotonic() > looked + 0.5:
                looked, ranks = time.monotonic(), children(process.pid)
            for rank, pid in ranks.items():
                for kind, size in resident(pid).items():
                    most = seen.setdefault(rank, {})
                    most[kind] = max(size, most.get(kind, 0))
            time.sleep(0.004)
        assert process.returncode == 0, process.stdout.read()
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory")
    (path / "wide_net.py").write_text(MODEL)
    return path


def run(command, ranks, name, width, depth):
    return command(ranks, *TRAIN, "--model", f"wide_net:wide:width={width},depth={depth}", "--out", name)


def test_a_worker_takes_17_bytes_a_weight_and_any_number_of_ranks_gives_the_same_bits(command, folder):
    small = peaks(run(command, 3, "small.h5", 64, 1), folder)
    large = peaks(run(command, 3, "large.h5", WIDTH, DEPTH), folder)
    for rank in (1, 2):
        for kind, most in (("RssAnon", OWN), ("RssShmem", SHARED)):
            more = large[rank][kind] - small[rank][kind]
            assert more <= most * P + SLACK, f"rank {rank}: {more / P:.2f} bytes a weight of {kind}, at most {most}"
    subprocess.run(run(command, 1, "alone.h5", WIDTH, DEPTH), cwd=folder, env=environment(), check=True,
                   stdout=subprocess.DEVNULL)
    assert verify(folder / "alone.h5", folder / "large.h5") == []
