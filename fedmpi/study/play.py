"""Runs of a study or a sweep, several at a time on one machine, each a process of its own with its
log beside its run file.

A run without a launcher is a fork of a server process that has imported torch, which would take
each run 2 s anew. Where the study is killed, its runs and launchers are asked to stop. A run holds
a lock on its log: nobody plays it a second time meanwhile.
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
    """``({name: exit code}, whether it was asked to stop)``: the runs that were played,
    ``parallel`` at a time.

    Each is played by the command ``start`` before ``python -m fedmpi train``. ``datasets`` are the
    specs of the runs' data sets. ``told(name, code, seconds)`` hears of each run that has ended,
    ``waits(names)`` of runs that another process plays now. After a signal that asks to stop no run
    starts any more, and those in flight get the signal."""
    begun = _launcher(start) if start else _forks(datasets)
    waiting, flying, codes, asked, announced = list(names), {}, {}, [], set()

    def ask(number, frame=None):
        asked.append(number)
        # Ctrl-C on a run would mean: stop at once, without a checkpoint.
        passed_on = signal.SIGTERM if number == signal.SIGINT else number
        for flight in flying.values():
            flight.signal(passed_on)

    def start_one():
        """Whether a run was free and has been started."""
        name = _first_free(folder, waiting)
        if name is None:
            if set(waiting) - announced:
                waits(waiting)
                announced.update(waiting)
            return False
        waiting.remove(name)
        arguments = ["train", *sweeps.train_arguments(folder, name)]
        flying[name] = begun(arguments, sweeps.path(folder, name, "log"))
        return True

    def collect():
        """Tell of the runs that have ended."""
        ended = [name for name, flight in flying.items() if flight.code() is not None]
        for name in ended:
            flight = flying.pop(name)
            codes[name] = flight.code()
            told(name, codes[name], time.monotonic() - flight.since)

    before = {number: signal.signal(number, ask) for number in [*notices(), signal.SIGINT]}
    try:
        while flying or (waiting and not asked):
            while waiting and len(flying) < parallel and not asked:
                if not start_one():
                    break
            time.sleep(POLL_S)
            collect()
        return codes, bool(asked) or COME_BACK in codes.values()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_free(folder, names):
    """The first of the names whose run no process plays, or None."""
    for name in names:
        if free(sweeps.path(folder, name, "log")):
            return name
    return None


def free(log):
    """Whether no process plays the run of that log."""
    with contextlib.suppress(FileNotFoundError), open(log, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _launcher(start):
    """``begun(arguments, log) -> Flight`` of runs by a launcher: ``start`` is put before the
    command."""
    dies_with_us = None
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        dies_with_us = functools.partial(prctl, PR_SET_PDEATHSIG, signal.SIGTERM)

    def begun(arguments, log):
        command = [*start, sys.executable, "-m", "fedmpi", *arguments]
        with open(log, "a", encoding="utf-8") as file:
            # The launcher inherits the lock.
            fcntl.flock(file, fcntl.LOCK_EX)
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=dies_with_us, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return Flight(process.poll, process.send_signal, time.monotonic())

    return begun


def _forks(datasets):
    """``begun(arguments, log) -> Flight`` of runs that are forked from a server with all imports
    behind it."""
    # The server keeps the environment of its start.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    preloaded = [*IMPORTED]
    for spec in sorted(datasets):
        readers = READERS.get(spec.partition(":")[0], ["torchvision.datasets"])
        preloaded += [name for name in readers if name not in preloaded]
    context.set_forkserver_preload(preloaded)

    def begun(arguments, log):
        process = context.Process(target=_command, args=(arguments, log))
        process.start()
        return Flight(lambda: process.exitcode, lambda number: os.kill(process.pid, number), time.monotonic())

    return begun


def _command(arguments, log):
    """``fedmpi`` with ``arguments`` in this process, its output appended to the file ``log``."""
    # A session of its own: the study passes the terminal's signals on.
    os.setsid()
    threading.Thread(target=_orphaned, daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    fcntl.flock(file, fcntl.LOCK_EX)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, file), (2, file)):
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
