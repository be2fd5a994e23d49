"""Many ranks on few cores: seconds a round of the cross-silo work with 32 workers, against 2.

``fedmpi bench crowd`` starts both anew and in turn, 33 ranks and 3. They do the same work to the
same bits. Many ranks on few cores cost impolite waiting, shared caches, and messages to more ranks.
Seconds are those of whole rounds after the first, which allocates; imports and the set-up do not
count.
"""

import os
import statistics
import sys
import tempfile
from functools import partial

import torch

from fedmpi.bench import round as works
from fedmpi.bench.ratios import ratios, summary
from fedmpi.bench.start import spoken
from fedmpi.build.federation import shared_arrays
from fedmpi.run import launch
from fedmpi.run.launcher import launcher_path
from fedmpi.transport import place

# The ranks of the other side: a server and two workers.
FEW = 3
# The start of the line with a play's result.
RESULT = "round seconds:"
PLAY = """\
import sys
from fedmpi.bench.many_ranks import play
data_dir, samples, rounds = sys.argv[1:]
sys.exit(play(data_dir, int(samples), int(rounds)))
"""


def measure(ranks, data_dir, samples, rounds, repeats, say):
    """Print the median seconds a round of both and their ratio; returns the exit code."""
    seconds = {FEW: [], ranks: []}
    for repeat in range(1, repeats + 1):
        texts = []
        for size, taken in seconds.items():
            round_s = _round_s(size, data_dir, samples, rounds)
            taken.append(round_s)
            texts.append(f"{size} ranks {round_s:.3f} s a round")
        listed = ", ".join(texts)
        say(f"repeat {repeat}: {listed}")
    few, many = seconds.values()
    say(_result(ranks, many, few))
    return 0


def _result(ranks, many, few):
    # The cores of this job, which may be fewer than the machine's.
    num_cores = len(os.sched_getaffinity(0))
    many_s = statistics.median(many)
    few_s = statistics.median(few)
    quotients = ratios(many, few)
    ratio, least, most = summary(quotients)
    return (
        f"crowd: {ranks} ranks on {num_cores} cores {many_s:.3f} s a round, {FEW} ranks "
        f"{few_s:.3f} s: ratio {ratio:.3f} (of {len(quotients)}: {least:.3f} to {most:.3f}; "
        "aim 1.10)")


def _round_s(size, data_dir, samples, rounds):
    """Seconds a round of a new job with ``size`` ranks."""
    command = [
        launcher_path("mpirun"),
        "-n",
        str(size),
        sys.executable,
        "-c",
        PLAY,
        data_dir,
        str(samples),
        str(rounds),
    ]
    # Other lines are MPI's, or about missing data.
    results = [line for line in spoken(command) if line.startswith(RESULT)]
    text = results[0].removeprefix(RESULT)
    return float(text)


def play(data_dir, samples, rounds):
    """Play, on the launcher's ranks, and print the seconds a round of all but the first; returns
    the exit code."""
    def tell(line):
        sys.stdout.write(f"{line}\n")

    def server(connect):
        return _play(connect, data_dir, samples, rounds, tell)

    # The work is for cores alone.
    see = partial(place.mine, gpus=False)
    return launch.on_ranks(server, launch.worker, tell, see=see)


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
        # The first round allocates.
        arm.play(1)
        round_s = arm.play(rounds)
        tell(f"{RESULT} {round_s:.4f}")
