"""Many ranks on few cores: seconds a round of the cross-silo work with 32 workers, against 2.

``fedmpi bench crowd`` starts both anew and in turn, 33 ranks and 3. They do the same work to the same bits. The costs
of a crowd are impolite waiting, shared caches, and messages to more ranks. Seconds are those of whole rounds after the
first, which allocates; imports and the set-up do not count.
"""

import os
import statistics
import sys
import tempfile
from functools import partial

import torch

from fedmpi.bench import round as works
from fedmpi.bench.ratios import ratios
from fedmpi.bench.start import spoken
from fedmpi.build.federation import shared_arrays
from fedmpi.run import launch
from fedmpi.run.launcher import launcher_path
from fedmpi.transport import place

# The start of the line with a play's result.
RESULT = "round seconds:"
PLAY = "import sys; from fedmpi.bench.crowd import play; sys.exit(play(sys.argv[1], *map(int, sys.argv[2:])))"


def measure(ranks, data_dir, samples, rounds, repeats, say):
    """Print the median seconds a round of both and their ratio; returns the exit code."""
    seconds = {size: [] for size in (3, ranks)}
    for repeat in range(1, repeats + 1):
        for size in seconds:
            seconds[size].append(_round_s(size, data_dir, samples, rounds))
        texts = []
        for size, taken in seconds.items():
            texts.append(f"{size} ranks {taken[-1]:.3f} s a round")
        say(f"repeat {repeat}: " + ", ".join(texts))
    few, many = seconds.values()
    quotients = ratios(many, few)
    num_cores = len(os.sched_getaffinity(0))
    say(f"crowd: {ranks} ranks on {num_cores} cores {statistics.median(many):.3f} s a round, 3 "
        f"ranks {statistics.median(few):.3f} s: ratio {statistics.median(quotients):.3f} (of {repeats}: "
        f"{min(quotients):.3f} to {max(quotients):.3f}; aim 1.10)")
    return 0


def _round_s(size, data_dir, samples, rounds):
    """Seconds a round of a new job with ``size`` ranks."""
    command = [launcher_path("mpirun"), "-n", str(size), sys.executable, "-c", PLAY, data_dir, str(samples),
               str(rounds)]
    results = [line for line in spoken(command) if line.startswith(RESULT)]
    return float(results[0].removeprefix(RESULT))


def play(data_dir, samples, rounds):
    """Play, on the launcher's ranks, and print the seconds a round of all but the first; returns the exit code."""
    def tell(line):
        sys.stdout.write(f"{line}\n")

    return launch.on_ranks(lambda connect: _play(connect, data_dir, samples, rounds, tell), launch.worker, tell,
                           see=partial(place.mine, gpus=False))


def _play(connect, data_dir, samples, rounds, tell):
    torch.set_num_threads(1)
    options = works.SILO | {"data_dir": data_dir}
    if samples:
        options["train_samples"] = samples
    data, options = works.federation(options, tell)
    transport = connect()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.h5")
        arm = works.Arm(options, data.dataset, transport, path, tell)
        transport.share({"kind": "data"}, shared_arrays(data))
        arm.set_up()
        arm.play(1)
        tell(f"{RESULT} {arm.play(rounds):.4f}")
