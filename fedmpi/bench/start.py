"""From the command to the first round, against the least work of its ranks.

Ours is `mpirun -n 3 fedmpi train`, from its start until the model of round 1 is published: the
arrival of the line "all ranks ready", plus the run file's seconds for encoding and sending. The
reference is three ranks importing torch and mpi4py, with rank 0 reading the same arrays, until the
last of them says so. The data are a file of the size of Fashion-MNIST, written for this
measurement. Both are started anew and in turn; the first pair warms up the disk's cache. Nothing
may be put off: the second round's seconds are printed beside the first's.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

from fedmpi.bench.ratios import ratios, spread, turn
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
TRAIN = (
    "--rounds", "2",
    "--clients", "8",
    "--local-epochs", "1",
    "--batch-size", "100",
    "--train-samples", "6000",
)


def measure(ranks, repeats, say):
    """Print the median seconds of both and their ratio; returns the exit code."""
    launcher = [launcher_path("mpirun"), "-n", str(ranks), sys.executable]
    ours, reference = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "data.h5")
        out = os.path.join(folder, "run.h5")
        _write_images(data)
        imports = [*launcher, "-c", REFERENCE, data]
        train = [*launcher, "-m", "fedmpi", "train", *TRAIN]
        train += ["--dataset", data, "--out", out]
        for repeat in range(repeats + 1):
            reference_s = until(imports, "ready", ranks)
            ready_s = until(train, f"{ranks} ranks ready after", 1)
            rounds = read_run(out).rounds
            os.remove(out)
            # The ranks are ready before the first model is on its way.
            own_s = ready_s + float(rounds["encode_s"][0])
            reference.append(reference_s)
            ours.append(own_s)
            first_s, second_s = rounds["round_s"][:2]
            say(f"{turn(repeat)}: reference {reference_s:.2f} s, ours {own_s:.2f} s; "
                f"round 1 then {first_s:.2f} s, round 2 {second_s:.2f} s")
    say(_result(ranks, ours[1:], reference[1:]))
    return 0


def _result(ranks, ours, reference):
    # The cores of this job, which may be fewer than the machine's.
    num_cores = len(os.sched_getaffinity(0))
    own_s = statistics.median(ours)
    reference_s = statistics.median(reference)
    ratio = spread(ratios(ours, reference))
    of_medians = own_s / reference_s
    return (
        f"start: {ranks} ranks on {num_cores} cores publish the first round's model after "
        f"{own_s:.2f} s; {ranks} ranks that import torch and read the data take "
        f"{reference_s:.2f} s: ratio {ratio}; of the medians {of_medians:.3f}")


def _write_images(path):
    with h5py.File(path, "w") as file:
        for name, array in images().items():
            file[name] = array


def images():
    """Arrays of the shape and size of Fashion-MNIST's, of noise."""
    gen = np.random.default_rng(0)
    arrays = {}
    # Reading takes as long for noise as for clothes.
    for part, n in (("train", 60_000), ("test", 10_000)):
        pixels = gen.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = gen.integers(0, 10, (n,), dtype=np.int64)
        arrays[f"x_{part}"] = pixels
        arrays[f"y_{part}"] = labels
    return arrays


def until(command, text, times):
    """Seconds from the start of ``command`` until its line number ``times`` with ``text``; waits
    for its end.

    FedError if there are fewer such lines."""
    begin = time.perf_counter()
    seconds = []
    # To the end, also after the last line that counts: nothing stays behind for the other side.
    for line in spoken(command):
        if text in line:
            seconds.append(time.perf_counter() - begin)
    if len(seconds) < times:
        words = " ".join(command)
        raise FedError(f"{words} said {text!r} {len(seconds)} times, expected {times}")
    return seconds[times - 1]


def spoken(command):
    """Yield the lines of ``command`` as they come. FedError if it does not end with exit code 0."""
    lines = []
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True)
    # The block waits for its end.
    with process:
        for line in process.stdout:
            lines.append(line)
            yield line
    if process.returncode:
        words = " ".join(command)
        output = "".join(lines)
        raise FedError(f"{words} ended with code {process.returncode}:\n{output}")
