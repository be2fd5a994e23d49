"""Runs of a study or a sweep, several at a time on one machine, each a process of its own with its
log beside its run file.

A run without a launcher is forked from a server process with torch imported: an import of its own
would take each run 2 s. If the study is killed, its runs and launchers are asked to stop. A run
holds a lock on its log: nobody plays it a second time meanwhile.
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

from fedmpi.core.stop import COME_BACK, notices
from fedmpi.study import sweep as sweeps

# Seconds between two looks at the runs.
POLL_S = 0.05
# Of <linux/prctl.h>: the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
# Every run imports these.
IMPORTED = [
    "fedmpi.build.check",
    "fedmpi.build.needs",
    "fedmpi.build.rehearsal",
    "fedmpi.build.worker",
    "fedmpi.cli",
    "fedmpi.client.worker",
    "fedmpi.read.report.text",
    "fedmpi.server.loop",
    "fedmpi.store",
    "plotext",
]
# Libraries that read data sets; torchvision reads those without a line here.
READERS = {"digits": ["sklearn.datasets"], "hdf5": [], "synthetic": []}


class Flight(NamedTuple):
    """A run in flight."""

    code: Callable                # () -> its exit code, None while it plays
    signal: Callable              # of the number of a signal, which it gets
    since: float


def play(folder, names, start, datasets, parallel, ended, waits):
    """``({name: exit code}, whether it was asked to stop)``: the runs that were played,
    ``parallel`` at a time.

    Each is played by the command ``start`` before ``python -m fedmpi train``. ``datasets`` are the
    specs of the runs' data sets. ``ended(name, code, seconds)`` is called for each run at its end,
    ``waits(names)`` if another process plays these runs now. After a signal that asks to stop no
    run starts any more, and the runs in flight get the signal."""
    begun = _launcher(start) if start else _forks(datasets)
    waiting = list(names)
    flying, codes = {}, {}
    announced = set()

    def start_one():
        """Whether a run was free and has been started."""
        name = _first_free(folder, waiting)
        if name is None:
            news = set(waiting) - announced
            if news:
                waits(waiting)
                announced.update(waiting)
            return False
        waiting.remove(name)
        arguments = ["train", *sweeps.train_arguments(folder, name)]
        log = sweeps.path(folder, name, "log")
        flying[name] = begun(arguments, log)
        return True

    def collect():
        """Tell of ended runs."""
        landed = [name for name, flight in flying.items() if flight.code() is not None]
        for name in landed:
            flight = flying.pop(name)
            codes[name] = flight.code()
            seconds = time.monotonic() - flight.since
            ended(name, codes[name], seconds)

    with _passing_signals_on(flying) as asked:
        while flying or (waiting and not asked):
            while waiting and len(flying) < parallel and not asked:
                if not start_one():
                    break
            time.sleep(POLL_S)
            collect()
    was_stopped = bool(asked) or COME_BACK in codes.values()
    return codes, was_stopped


@contextlib.contextmanager
def _passing_signals_on(flying):
    """Pass requests to stop on to the runs in flight; the list of the signals received so far."""
    asked = []

    def ask(number, frame=None):
        asked.append(number)
        # Ctrl-C on a run would mean: stop at once, without a checkpoint.
        passed_on = signal.SIGTERM if number == signal.SIGINT else number
        for flight in flying.values():
            flight.signal(passed_on)

    before = {}
    for number in [*notices(), signal.SIGINT]:
        before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_free(folder, names):
    """The first of the names without a process that plays its run, or None."""
    for name in names:
        log = sweeps.path(folder, name, "log")
        if free(log):
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
        # Loaded before the fork: little is safe between fork and exec.
        prctl = ctypes.CDLL(None).prctl
        dies_with_us = functools.partial(prctl, PR_SET_PDEATHSIG, signal.SIGTERM)

    def begun(arguments, log):
        command = [*start, sys.executable, "-m", "fedmpi", *arguments]
        with open(log, "a", encoding="utf-8") as file:
            # The launcher inherits the lock.
            fcntl.flock(file, fcntl.LOCK_EX)
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=dies_with_us,
                env=os.environ | {"OMP_NUM_THREADS": "1"})
        return Flight(process.poll, process.send_signal, time.monotonic())

    return begun


def _forks(datasets):
    """``begun(arguments, log) -> Flight`` of runs forked from a server with all imports behind
    it."""
    # The server keeps the environment of its start.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_imports(datasets))

    def begun(arguments, log):
        process = context.Process(target=_command, args=(arguments, log))
        process.start()

        def code():
            return process.exitcode

        def send(number):
            os.kill(process.pid, number)

        return Flight(code, send, time.monotonic())

    return begun


def _imports(datasets):
    """The modules to import before the first fork, each once; ``datasets`` are specs."""
    modules = dict.fromkeys(IMPORTED)
    # Sorted, as ``datasets`` is a set: the order of imports is the same every time.
    for spec in sorted(datasets):
        name, _, _ = spec.partition(":")
        readers = READERS.get(name, ["torchvision.datasets"])
        modules.update(dict.fromkeys(readers))
    return list(modules)


def _command(arguments, log):
    """``fedmpi`` with ``arguments`` in this process, its output appended to the file ``log``."""
    # A session of its own: the study passes the terminal's signals on.
    os.setsid()
    threading.Thread(target=_orphaned, daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    # Held until this process ends.
    fcntl.flock(file, fcntl.LOCK_EX)
    nothing = os.open(os.devnull, os.O_RDONLY)
    # The descriptors themselves: MPI and torch write past sys.stdout.
    for number, source in ((0, nothing), (1, file), (2, file)):
        os.dup2(source, number)
    sys.argv = ["fedmpi", *arguments]
    runpy.run_module("fedmpi", run_name="__main__", alter_sys=True)


def _orphaned():
    """Ask this run to stop as soon as the study's process is gone."""
    study = multiprocessing.parent_process()
    multiprocessing.connection.wait([study.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def last_line(folder, name):
    """The last error of the run's log, else its last line, in at most 200 characters."""
    log = sweeps.path(folder, name, "log")
    last, last_error = "it said nothing", ""
    with open(log, encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.strip()
            if text:
                last = text
            if "error" in text.lower():
                last_error = text
    shown = last_error or last
    return shown[:200]
