"""Runs of a study, several at a time on one machine, each a process of its own with its log beside its run file."""

import os
import signal
import subprocess
import sys
import time

from fedmpi import sweep as sweeps
from fedmpi.stop import COME_BACK, notices

POLL_S = 0.05


def play(folder, names, start, parallel, told):
    """``{name: exit code}`` of the runs that were played, ``parallel`` at a time, each by the command ``start`` before
    ``python -m fedmpi train``. ``told(name, code, seconds)`` hears of each that has ended. After a signal that asks to
    stop no run starts any more, and those in flight are passed the signal."""
    waiting, flying, codes, asked = list(names), {}, {}, []

    def ask(number, frame=None):
        asked.append(number)
        for process, _, _ in flying.values():
            process.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    before = {number: signal.signal(number, ask) for number in [*notices(), signal.SIGINT]}
    try:
        while flying or waiting and not asked:
            while waiting and len(flying) < parallel and not asked:
                name = waiting.pop(0)
                flying[name] = _started(folder, name, start)
            time.sleep(POLL_S)
            for name in [name for name, (process, _, _) in flying.items() if process.poll() is not None]:
                process, log, since = flying.pop(name)
                log.close()
                codes[name] = process.returncode
                told(name, process.returncode, time.monotonic() - since)
        return codes, bool(asked) or COME_BACK in codes.values()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _started(folder, name, start):
    log = open(sweeps.path(folder, name, "log"), "a", encoding="utf-8")
    argv = [*start, sys.executable, "-m", "fedmpi", "train", *sweeps.train_arguments(folder, name)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)
    return process, log, time.monotonic()


def last_line(folder, name):
    """The last error of the run's log, else its last line, in at most 200 characters."""
    with open(sweeps.path(folder, name, "log"), encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:200]
