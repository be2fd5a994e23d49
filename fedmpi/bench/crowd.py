"""Many ranks on few cores: seconds a round of the cross-silo work with 32 workers, against 2.

Both are started anew and in turn by ``fedmpi bench crowd``, 33 ranks and 3, and do the same work to the same bits; what
a crowd costs is waiting that is not polite, caches that are shared, and messages to more ranks. Seconds are those of
whole rounds after the first, which allocates; imports and the set-up are apart.
"""

import os
import statistics
import sys
import tempfile
from functools import partial

import torch

from fedmpi.build.federation import shared_arrays
from fedmpi.run import launch
from fedmpi.transport import place
from fedmpi.bench import round as works
from fedmpi.bench.start import spoken
from fedmpi.run.launcher import launcher_path

TOLD = "round seconds:"
PLAY = "import sys; from fedmpi.bench.crowd import play; sys.exit(play(sys.argv[1], *map(int, sys.argv[2:])))"


def measure(ranks, data_dir, samples, rounds, repeats, say):
    """Print the median seconds a round of both and their ratio; returns the exit code."""
    found = {size: [] for size in (3, ranks)}
    for repeat in range(1, repeats + 1):
        for size, took in found.items():
            command = [launcher_path("mpirun"), "-n", str(size), sys.executable, "-c", PLAY, data_dir,
                       str(samples), str(rounds)]
            said = [line for line in spoken(command) if line.startswith(TOLD)]
            took.append(float(said[0].removeprefix(TOLD)))
        say(f"repeat {repeat}: " + ", ".join(f"{size} ranks {took[-1]:.3f} s a round" for size, took in found.items()))
    few, many = found.values()
    ratios = [a / b for a, b in zip(many, few)]
    say(f"crowd: {ranks} ranks on {len(os.sched_getaffinity(0))} cores {statistics.median(many):.3f} s a round, 3 "
        f"ranks {statistics.median(few):.3f} s: ratio {statistics.median(ratios):.3f} (of {repeats}: "
        f"{min(ratios):.3f} to {max(ratios):.3f}; aim 1.10)")
    return 0


def play(data_dir, samples, rounds):
    """Play, on the ranks that the launcher started, and tell the seconds a round of all but the first."""
    def tell(line):
        sys.stdout.write(f"{line}\n")

    return launch.on_ranks(lambda connect: _play(connect, data_dir, samples, rounds, tell), launch.worker, tell,
                           see=partial(place.mine, gpus=False))


def _play(connect, data_dir, samples, rounds, tell):
    torch.set_num_threads(1)
    options = works.SILO | {"data_dir": data_dir} | ({"train_samples": samples} if samples else {})
    data, options = works.federation(options, tell)
    transport = connect()
    with tempfile.TemporaryDirectory() as folder:
        arm = works.Arm(options, data.dataset, transport, os.path.join(folder, "run.h5"), tell)
        transport.share({"kind": "data"}, shared_arrays(data))
        arm.set_up()
        arm.play(1)
        tell(f"{TOLD} {arm.play(rounds):.4f}")
