"""From the command to the first round, against the least that its ranks must do.

Ours is `mpirun -n 3 fedmpi train` from its start to the model of round 1 being published: the line that all ranks are
ready, as it arrives here, and the seconds that the run file then gives for encoding and sending. The reference is three
ranks that import torch and mpi4py, of which rank 0 reads the same arrays, until the last of them says so. The data are
a file of the size of Fashion-MNIST, written for the purpose. Both are started anew and in turn, the first pair warms
the disk's cache up. Nothing may be put off: the second round's seconds are printed beside the first's.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

from fedmpi.core.errors import FedError
from fedmpi.run.launcher import launcher_path
from fedmpi.store import read_run

REFERENCE = """
import os, sys
import torch, mpi4py.MPI
if mpi4py.MPI.COMM_WORLD.rank == 0:
    import h5py
    with h5py.File(sys.argv[1]) as f:
        arrays = [f[name][()] for name in ("x_train", "y_train", "x_test", "y_test")]
os.write(2, b"ready\\n")
"""
TRAIN = ["--rounds", "2", "--clients", "8", "--local-epochs", "1", "--batch-size", "100", "--train-samples", "6000"]


def measure(ranks, repeats, say):
    """Print the median seconds of both and their ratio; returns the exit code."""
    start = [launcher_path("mpirun"), "-n", str(ranks), sys.executable]
    seconds = {"ours": [], "reference": []}
    with tempfile.TemporaryDirectory() as folder:
        data, out = os.path.join(folder, "data.h5"), os.path.join(folder, "run.h5")
        with h5py.File(data, "w") as file:
            for name, array in images().items():
                file[name] = array
        train = ["-m", "fedmpi", "train", "--dataset", data, "--out", out, *TRAIN]
        for repeat in range(repeats + 1):
            seconds["reference"].append(until([*start, "-c", REFERENCE, data], "ready", ranks))
            ready = until([*start, *train], f"{ranks} ranks ready after", 1)
            rounds = read_run(out).rounds
            os.remove(out)
            seconds["ours"].append(ready + float(rounds["encode_s"][0]))
            say(f"{f'repeat {repeat}' if repeat else 'warm-up'}: reference {seconds['reference'][-1]:.2f} s, ours "
                f"{seconds['ours'][-1]:.2f} s; round 1 then {rounds['round_s'][0]:.2f} s, round 2 "
                f"{rounds['round_s'][1]:.2f} s")
    ours, reference = (each[1:] for each in seconds.values())
    ratios = [a / b for a, b in zip(ours, reference)]
    say(f"start: {ranks} ranks on {len(os.sched_getaffinity(0))} cores publish the first round's model after "
        f"{statistics.median(ours):.2f} s; {ranks} ranks that import torch and read the data take "
        f"{statistics.median(reference):.2f} s: ratio {statistics.median(ratios):.3f} (of {repeats}: "
        f"{min(ratios):.3f} to {max(ratios):.3f}); of the medians "
        f"{statistics.median(ours) / statistics.median(reference):.3f}")
    return 0


def images():
    """Arrays of the shape and size of Fashion-MNIST's, of noise."""
    gen = np.random.default_rng(0)
    return {f"{kind}_{part}": gen.integers(0, high, shape, dtype=dtype)
            for part, n in (("train", 60_000), ("test", 10_000))
            for kind, high, shape, dtype in (("x", 256, (n, 28, 28), np.uint8), ("y", 10, (n,), np.int64))}


def until(command, text, times):
    """Seconds from starting ``command`` until it has said a line with ``text`` that many ``times``; it is then played
    to its end, with exit code 0."""
    begin = time.perf_counter()
    said = [time.perf_counter() - begin for line in spoken(command) if text in line]
    if len(said) < times:
        raise FedError(f"{' '.join(command)} said {text!r} {len(said)} times, expected {times}")
    return said[times - 1]


def spoken(command):
    """The lines of ``command`` as they come; FedError where it does not end with exit code 0."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            lines.append(line)
            yield line
    if process.returncode:
        raise FedError(f"{' '.join(command)} ended with code {process.returncode}:\n{''.join(lines)}")
