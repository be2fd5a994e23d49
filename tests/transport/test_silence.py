"""A rank that is silent or a message that is damaged ends the job soon, in one line; a rank that works is let alone."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import environment, find_mpirun

from fedmpi.transport.watch import Watch

SCRIPT = pathlib.Path(__file__).with_name("silence_script.py")


@pytest.fixture
def job():
    """``job(case, silence_s) -> process`` of three ranks."""
    mpirun = find_mpirun()
    if mpirun is None:
        pytest.skip("no mpirun: pip install mpich, or load the cluster's MPI")
    return lambda case, silence_s: subprocess.Popen(
        [mpirun, "-n", "3", sys.executable, str(SCRIPT), case, str(silence_s)], env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def told(process, code, limit_s=60):
    """The lines with an error of a job that ends with ``code``, and its output."""
    output = process.communicate(timeout=limit_s)[0]
    assert process.returncode == code and "Traceback" not in output, output
    return [line for line in output.splitlines() if "error" in line and not line.startswith("Abort(")], output


def test_a_worker_busy_in_python_is_not_silent(job):
    assert "all went well" in told(job("busy", 1), 0)[1]


def test_beats_cost_next_to_nothing(job):
    """A rank that waits three seconds, with thirty times as many beats as usual, burns at most 2 % of a core."""
    lines, output = told(job("idle", 1), 0)
    assert float(re.search(r"burnt (\S+)", output)[1]) <= 0.06


@pytest.mark.parametrize("case, silence_s, line", [
    ("halted", 1, r"error: rank 1 on \S+ has been silent for [12] s, last known work: client 1 in round 1 \([12] s "
                  r"ago\)"),
    ("blocked", 1, r"error: rank 1 on \S+ has been silent for [12] s, last known work: client 1 in round 1 \([12] s "
                   r"ago\); rank 0 is blocked at waiting for workers in round 1"),
    ("endless", 1, r"error: rank 1 on \S+ has been at client 1 in round 1 for [23]\S* s, longer than --task-limit 2"),
    ("never ready", 0.2, r"error: 2 of 3 ranks are ready after 2 s \(10 times --silence\), not: rank 2")])
def test_a_silent_rank_ends_the_job_in_one_line(job, case, silence_s, line):
    start = time.monotonic()
    lines, output = told(job(case, silence_s), 1)
    assert len(lines) == 1 and re.fullmatch(line, lines[0]), output
    assert time.monotonic() - start < 15


def test_a_job_that_is_halted_as_a_whole_goes_on(job):
    """As a scheduler suspends one: nobody counts the time in which nobody ran."""
    process = job("all halted", 1)
    while not process.stdout.readline().startswith("round 1"):
        pass
    ranks = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if of_job(pid, process.pid)]
    assert len(ranks) == 3
    for number, pause_s in ((signal.SIGSTOP, 4), (signal.SIGCONT, 0)):
        for pid in ranks:
            os.kill(pid, number)
        time.sleep(pause_s)
    assert "all went well" in told(process, 0)[1]


def of_job(pid, root):
    """Whether ``pid`` runs the script, two levels below ``root``: launcher, its helper, rank."""
    def parent(pid):
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    try:
        ours = str(SCRIPT) in pathlib.Path(f"/proc/{pid}/cmdline").read_text()
        return ours and pid != root and parent(parent(pid)) == root
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("case, line", [
    ("a job", r"error on rank [12] on \S+: a job or a call from rank 0 is damaged on its way: \d+ bytes with checksum "
              r"[0-9a-f]{16}, sent with [0-9a-f]{16}"),
    ("a reply", r"error: a message from rank 1 on \S+, at client \d in round 1, is damaged on its way: .*"),
    ("a model", r"error on rank [12]: the message round 1 from rank 0 is damaged on its way: .*"),
    ("the data", r"error on rank 2 on \S+: the data data from rank 0 are damaged: checksum .*")])
def test_a_damaged_message_ends_the_job_in_one_line(job, case, line):
    lines, output = told(job(case, 5), 1)
    assert lines and all(re.fullmatch(line, each) for each in lines), output     # two ranks may have got the same


def test_who_is_silent_for_too_long_is_lost():
    watch = Watch([1, 2], 6.0, 0.0)
    assert watch.interval_s == 1
    for now in range(1, 7):
        watch.hear(2, now)
        assert watch.silent(now) == {}
    assert watch.silent(7) == {1: 7}
    watch.hear(1, 7.5)
    assert watch.silent(8) == {}


def test_who_said_goodbye_is_not_missed():
    watch = Watch([1, 2], 6.0, 0.0)
    watch.leave(1)
    watch.leave(1)
    watch.hear(1, 1)
    assert [sorted(watch.silent(now)) for now in range(1, 9)][-1] == [2] and list(watch.heard) == [2]


def test_time_in_which_we_did_not_look_does_not_count():
    watch = Watch([1], 6.0, 0.0)
    assert watch.silent(1) == {} and watch.silent(100) == {} and watch.silent(101) == {}
    assert [bool(watch.silent(now)) for now in range(102, 108)] == [False, False, True, True, True, True]


def test_nobody_is_lost_where_silence_is_allowed():
    watch = Watch([1], 0, 0.0)
    assert watch.silent(1000) == {}
