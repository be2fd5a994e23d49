"""Ranks killed and halted at random points of one run, which goes on from what each end has left: to the same bits.

    pytest tests/runs/test_killing.py --kills 50 --kills-log kills.tsv         # jobs/kills.sh
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import time

import numpy as np
from conftest import environment, python_processes

from fedmpi.store import read_run, verify

SILENCE_S = 4
RUN = ("--rounds", 5000, "--clients", 6, "--model", "small-cnn:width=4", "--local-epochs", 1, "--device", "cpu",
       "--dataset", "synthetic:samples=300",
       # Clients keep controls and what encoding has lost, under a mask that moves.
       "--strategy", "scaffold", "--pruner", "set:every=2,sparsity=0.5", "--codec", "int8:feedback=true",
       "--contribution", "size")
EXPLAINED = r"^error: .*(died|was killed|silent for|not heard rank 0|ranks are ready after).*$"


class Job:
    """A run under mpirun, its output in a file."""

    def __init__(self, argv, folder):
        self.path = folder / "output.txt"
        with open(self.path, "w") as file:
            self.process = subprocess.Popen(argv, env=environment(), stdout=file, stderr=subprocess.STDOUT,
                                            start_new_session=True)

    def output(self):
        return self.path.read_text()

    def wait_for(self, pattern, limit_s=60):
        """Whether a line that matches has come, before the job ended."""
        end = time.monotonic() + limit_s
        while not (found := re.search(pattern, self.output(), re.M)) and self.process.poll() is None:
            assert time.monotonic() < end, f"no {pattern} after {limit_s} s:\n{self.output()}"
            time.sleep(0.01)
        return bool(found)

    def ranks(self, num):
        """Process ids, rank 0 first."""
        end = time.monotonic() + 20
        while len(found := python_processes(self.process.pid)) < num:
            assert time.monotonic() < end and self.process.poll() is None, self.output()
            time.sleep(0.01)
        return found

    def ended(self, limit_s):
        """Seconds until the end, and no later than that."""
        start = time.monotonic()
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            for pid in [*python_processes(self.process.pid), self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"hangs for {limit_s} s:\n{self.output()}") from None
        return time.monotonic() - start

    def told(self):
        """The lines that are neither progress nor the launcher's."""
        return [line for line in self.output().splitlines() if re.search(EXPLAINED, line)]


def alive(pids):
    """Those that still run, as what they were."""
    found = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat") as file:
            found += [pid] if file.read().rpartition(")")[2].split()[0] != "Z" else []
    return found


def descendants(root):
    """Every process below ``root``: ranks, launcher's helpers, the witness."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{entry}/stat") as file:
            parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def digests(out):
    """What was committed, a digest of the weights a round."""
    return read_run(out).rounds["weights_digest"] if out.exists() else np.array([])


def test_killed_at_random_points_it_loses_nothing(command, fedmpi, tmp_path, request):
    """Every end is soon, told in one line, and resumes; the whole is as if nothing had happened."""
    kills, gen = request.config.getoption("--kills"), random.Random(5)
    out, log = tmp_path / "run.h5", request.config.getoption("--kills-log")
    for number in range(kills):
        rank, sign = (1, 0, 2)[number % 3], (signal.SIGKILL, signal.SIGSTOP)[number // 3 % 2]
        early = number % 10 == 9                             # while ranks load and connect
        begin = ("train", *RUN, "--out", out) if not out.exists() else ("train", "--resume", out, "--device", "cpu")
        job = Job(command(3, *begin, "--silence", SILENCE_S), tmp_path)
        ranks = job.ranks(3)
        if not early:
            job.wait_for("^round ")
        time.sleep(gen.random() * (4 if early else 1.5))
        before, family = digests(out), descendants(job.process.pid)
        assert job.process.poll() is None, f"ended before it was killed:\n{job.output()}"
        os.kill(ranks[rank], sign)
        seconds = job.ended(15 if sign == signal.SIGKILL else 10 * SILENCE_S + 15 if early else 2 * SILENCE_S + 10)
        end = time.monotonic() + 5                           # a second on an idle machine
        while alive(family) and time.monotonic() < end:
            time.sleep(0.05)
        after, told = digests(out), job.told()
        with open(log, "a") as file:
            cells = (number + 1, f"rank {rank}", sign.name, "start" if early else "run", len(before), len(after),
                     job.process.returncode, f"{seconds:.1f}", " | ".join(told))
            file.write("\t".join(map(str, cells)) + "\n")
        assert job.process.returncode != 0 and alive(family) == [], job.output()
        most = 2 if (rank, sign) == (0, signal.SIGSTOP) else 1    # a worker's line, and the witness's if in time
        assert 1 <= len(told) <= most, job.output()
        assert "Traceback" not in job.output(), job.output()
        assert len(after) >= len(before) and np.array_equal(after[: len(before)], before)
        assert not out.exists() or "accuracy" in fedmpi(1, "show", out) or not len(after)
    last = len(digests(out)) + 2
    fedmpi(1, "train", "--resume", out, "--until", last)
    fedmpi(1, "train", *RUN, "--out", tmp_path / "whole.h5", "--until", last)
    assert verify(tmp_path / "whole.h5", out) == [] and len(digests(out)) == last
