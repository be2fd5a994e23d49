"""A large model's run killed at random moments, each time resumed on another number of ranks: to the same bits.

Its gradient is given (``fedmpi.bench.given``), so that rounds are messages, steps, sums and checkpoints.

    pytest tests/runs/test_killing_large.py --large-kills 20 --large-weights 124e6      # jobs/kills-large.sh
"""

import os
import random
import signal
import time

import numpy as np
from test_killing import Job, alive, descendants, digests

from fedmpi.store import verify

# Of each start, in turn.
RANKS = (2, 1, 3)
RUN = ("--rounds", 10_000, "--clients", 2, "--dataset", "synthetic:samples=100,size=4", "--partition", "iid",
       "--noise", "none", "--validation", 0, "--evaluate-every", 1000, "--device", "cpu", "--local-steps", 1,
       "--batch-size", 4, "--lr", 0.001, "--optimiser", "adamw", "--strategy", "diloco:inner=reset",
       "--pruner", "dense", "--contribution", "size", "--keep", 1)


def test_killed_at_random_moments_it_ends_with_the_same_bits(command, tmp_path, request):
    option = request.config.getoption
    gen = random.Random(7)
    run = (*RUN, "--model", f"fedmpi.bench.given:given:weights={option('--large-weights'):.0f}")
    out, round_s = tmp_path / "run.h5", 1.0
    for number in range(option("--large-kills")):
        size = RANKS[number % len(RANKS)]
        begin = ("train", *run, "--out", out) if not out.exists() else ("train", "--resume", out, "--device", "cpu")
        job = Job(command(size, *begin), tmp_path)
        # Alone, rank 0 is the process itself.
        ranks = job.ranks(size) if size > 1 else [job.process.pid]
        # One in five is killed while ranks load, share and build.
        early = number % 5 == 4
        if not early:
            assert job.wait_for("^round ", 1000), job.output()
            first = time.monotonic()
            # A second round tells how long one takes.
            if number == 0:
                job.wait_for("^round +2/", 1000)
                round_s = time.monotonic() - first
        time.sleep(gen.random() * (3 if early else 2 * round_s))
        before, family = digests(out), descendants(job.process.pid)
        assert job.process.poll() is None, f"ended before it was killed:\n{job.output()}"
        killed = gen.randrange(size)
        os.kill(ranks[killed], signal.SIGKILL)
        seconds = job.ended(60)
        end = time.monotonic() + 20
        while alive(family) and time.monotonic() < end:
            time.sleep(0.05)
        after = digests(out)
        with open(option("--kills-log"), "a") as file:
            cells = (number + 1, f"rank {killed} of {size}", "start" if early else "run", len(before), len(after),
                     f"{seconds:.1f}")
            file.write("\t".join(map(str, cells)) + "\n")
        assert job.process.returncode != 0 and alive(family) == [], job.output()
        assert "Traceback" not in job.output(), job.output()
        assert len(after) >= len(before) and np.array_equal(after[: len(before)], before)
    last = len(digests(out)) + 1
    whole = tmp_path / "whole.h5"
    for size, begin in ((2, ("--resume", out, "--device", "cpu")), (3, (*run, "--out", whole))):
        job = Job(command(size, "train", *begin, "--until", last), tmp_path)
        job.ended(60 * last)
        assert job.process.returncode == 0, job.output()
    assert verify(whole, out) == [] and len(digests(out)) == last
    with open(option("--kills-log"), "a") as file:
        file.write(f"the digest after round {last} is that of a run never killed\n")
