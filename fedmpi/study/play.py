"""Runs of a study or a sweep, several at a time on one machine, each a process of its own with its log beside its run
file.

A run without a launcher is a fork of a server process that has imported torch, which would take each run 2 s anew.
Where the study is killed, its runs and launchers are asked to stop. A run holds a lock on its log: nobody plays it a
second time meanwhile.
"""

import contextlib
import ctypes
import fcntl
import functools
import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from typing import Callable, NamedTuple

from fedmpi.study import sweep as sweeps
from fedmpi.core.stop import COME_BACK, notices

POLL_S = 0.05
PR_SET_PDEATHSIG = 1                 # of <linux/prctl.h>: the signal that a process gets when its parent dies
IMPORTED = ["fedmpi.build.check", "fedmpi.build.needs", "fedmpi.build.rehearsal", "fedmpi.build.worker",
            "fedmpi.cli", "fedmpi.client.worker",
            "fedmpi.read.report.text", "fedmpi.server.loop",
            "fedmpi.store", "plotext"]
READERS = {"digits": ["sklearn.datasets"], "hdf5": [], "synthetic": []}      # torchvision reads the other data sets


class Flight(NamedTuple):
    """A run in flight."""

    code: Callable                # () -> its exit code, None while it plays
    signal: Callable              # of the number of a signal, which it gets
    since: float


def play(folder, names, start, datasets, parallel, told, waits):
    """``{name: exit code}`` of the runs that were played, ``parallel`` at a time, each by the command ``start`` before
    ``python -m fedmpi train``. ``told(name, code, seconds)`` hears of each that has ended. After a signal that asks to
    stop no run starts any more, and those in flight are passed the signal. ``datasets`` are the specs of the data sets
    that runs read; ``waits(names)`` hears of runs that can only start when another process is done with them."""
    waiting, flying, codes, asked, known = list(names), {}, {}, [], set()
    begun = _launcher(start) if start else _forks(datasets)

    def ask(number, frame=None):
        asked.append(number)
        for flight in flying.values():
            flight.signal(signal.SIGTERM if number == signal.SIGINT else number)

    before = {number: signal.signal(number, ask) for number in [*notices(), signal.SIGINT]}
    try:
        while flying or waiting and not asked:
            while waiting and len(flying) < parallel and not asked:
                name = next((name for name in waiting if free(sweeps.path(folder, name, "log"))), None)
                if name is None:
                    if set(waiting) - known:
                        waits(waiting)
                        known.update(waiting)
                    break
                waiting.remove(name)
                flying[name] = begun(["train", *sweeps.train_arguments(folder, name)], sweeps.path(folder, name, "log"))
            time.sleep(POLL_S)
            for name in [name for name, flight in flying.items() if flight.code() is not None]:
                flight = flying.pop(name)
                codes[name] = flight.code()
                told(name, codes[name], time.monotonic() - flight.since)
        return codes, bool(asked) or COME_BACK in codes.values()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free(log):
    """Whether no process plays the run of that log."""
    with contextlib.suppress(FileNotFoundError), open(log, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _launcher(start):
    """``begun(arguments, log) -> Flight`` of the command that ``start`` is put before."""
    dies = None
    if sys.platform == "linux":
        dies = functools.partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGTERM)

    def begun(arguments, log):
        with open(log, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)               # the launcher inherits it
            process = subprocess.Popen([*start, sys.executable, "-m", "fedmpi", *arguments], stdin=subprocess.DEVNULL,
                                       stdout=file, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=dies,
                                       env=os.environ | {"OMP_NUM_THREADS": "1"})
        return Flight(process.poll, process.send_signal, time.monotonic())

    return begun


def _forks(datasets):
    """``begun(arguments, log) -> Flight`` of runs that are forked where everything has been imported."""
    os.environ["OMP_NUM_THREADS"] = "1"                    # the server has the environment of its start
    context = multiprocessing.get_context("forkserver")
    readers = [READERS.get(spec.partition(":")[0], ["torchvision.datasets"]) for spec in sorted(datasets)]
    context.set_forkserver_preload([*IMPORTED, *{name: None for names in readers for name in names}])

    def begun(arguments, log):
        process = context.Process(target=_command, args=(arguments, log))
        process.start()
        return Flight(lambda: process.exitcode, lambda number: os.kill(process.pid, number), time.monotonic())

    return begun


def _command(arguments, log):
    """``fedmpi`` with ``arguments`` in this process, what it says appended to the file ``log``."""
    os.setsid()                                            # what the terminal sends is for the study to pass on
    threading.Thread(target=_orphaned, daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    fcntl.flock(file, fcntl.LOCK_EX)
    for number, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, file), (2, file)):
        os.dup2(source, number)
    sys.argv = ["fedmpi", *arguments]
    runpy.run_module("fedmpi", run_name="__main__", alter_sys=True)


def _orphaned():
    """Ask this run to stop where the study's process is gone."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def last_line(folder, name):
    """The last error of the run's log, else its last line, in at most 200 characters."""
    with open(sweeps.path(folder, name, "log"), encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:200]
