"""Ranks that need not import torch: one process has it, and forks a rank for every ``rank_shim`` that mpirun starts.

    python warm_ranks.py SOCKET             # until its standard input ends

Importing torch takes two seconds of processor time a rank, forking a twentieth of one. mpirun, its launcher's
protocol and MPI itself are real: a forked rank has the streams, the environment, the folder and the connection
to the launcher that its shim was given. It is not below mpirun among processes, and is not signalled by it; it dies
when its shim does. So tests that look for ranks, send them signals or measure them start them in the usual way.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import pathlib
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback

SHIM = pathlib.Path(__file__).with_name("rank_shim.py")
# Beginnings of variables that say nothing to the libraries that are imported before a rank is forked.
READ_LATE = ("FEDMPI_", "MPIR_CVAR_")
# What a rank imports before it has played a round; not MPI, which begins when it is imported.
SOON = ("h5py", "torch", "torch.utils.flop_counter", "fedmpi.cli", "fedmpi.run.session", "fedmpi.build.setup",
        "fedmpi.build.worker", "fedmpi.client.worker", "fedmpi.server.loop", "fedmpi.store", "fedmpi.read.report")
PR_SET_NAME = 15                    # of <linux/prctl.h>
FREE = 200                          # handles from this number on are in nobody's way
BACKLOG = 100                       # of ranks that start or end at once
PATIENCE_S = 60


class WarmRanks:
    """The process that forks ranks; it is started where it is first needed, and ends with ``close``."""

    def __init__(self):
        self.process, self.folder = None, None

    def argv(self, arguments, environment):
        """What mpirun is to start in place of ``[python, *arguments]``."""
        if self.process is None:
            self._start(environment)
        return [sys.executable, "-S", "-E", str(SHIM), f"{self.folder.name}/ranks", *arguments]

    def _start(self, environment):
        self.folder = tempfile.TemporaryDirectory(prefix="fedmpi-ranks-")
        self.process = subprocess.Popen([sys.executable, __file__, f"{self.folder.name}/ranks"], env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        assert ready and self.process.stdout.readline(), "the process that forks ranks does not start"

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(PATIENCE_S)
            self.process.stdout.close()
            self.folder.cleanup()


def serve(place):
    """Forks ranks until the standard input ends. Returns only in a forked rank: ``(request, handles)``."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(BACKLOG)
    # A rank that ends wakes the wait below.
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    print("ready", flush=True)
    # {socket of a shim: process id of its rank}
    ranks = {}
    while True:
        ready, _, _ = select.select([0, woken, listener, *ranks], [], [])
        if 0 in ready:
            _kill(ranks.values())
            os._exit(0)
        if woken in ready:
            os.read(woken, BACKLOG)
        # A shim never says anything more: its launcher has killed it.
        _kill(pid for shim, pid in ranks.items() if shim in ready)
        _answer_ended(ranks)
        if listener not in ready:
            continue
        shim, _ = listener.accept()
        request, handles = _received(shim)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for connection in (listener, shim, *ranks):
                connection.close()
            os.close(woken)
            os.close(wake)
            return request, handles
        ranks[shim] = pid
        for handle in handles:
            os.close(handle)


def _kill(pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _answer_ended(ranks):
    """Tells the shims of ranks that have ended how they did."""
    for shim, pid in list(ranks.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del ranks[shim]
            # The shim may be gone.
            with shim, contextlib.suppress(OSError):
                shim.send(str(status).encode())


def _received(shim):
    """``(request, handles)`` of a shim that has connected; the handles are in nobody's way."""
    head, received, _, _ = socket.recv_fds(shim, 8, 4)
    with shim.makefile("rb") as file:
        request = json.loads(file.read(int.from_bytes(head, "big")))
    handles = [fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, FREE) for handle in received]
    for handle in received:
        os.close(handle)
    return request, handles


def become(request, handles):
    """This forked process is from now on the rank that was asked for; returns the arguments of its Python."""
    environment = request["environment"]
    places = [0, 1, 2, int(environment["PMI_FD"])]
    for handle, place in zip(handles, places, strict=True):
        os.dup2(handle, place)
        os.close(handle)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(request["folder"])
    # As Python makes them where they are no terminals.
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(open(2, "wb", closefd=False), "utf-8", "backslashreplace",
                                                   line_buffering=True)
    own = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:1] = own
    return request["arguments"]


def played(arguments):
    """The exit code of what Python does with ``arguments``, told as Python tells it."""
    try:
        play(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(code):
    """Ends a rank: as Python would, but without taking its modules apart, which copies every page that it shares."""
    atexit._run_exitfuncs()
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    # Not os._exit: MPICH tells the launcher that it has ended when C's exit does.
    ctypes.CDLL(None).exit(code)


def play(arguments):
    """What Python does with ``-m MODULE ...`` or ``FILE ...``."""
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for module in SOON:
        importlib.import_module(module)
    # A rank asks for a launcher among its parents.
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"hydra_ranks", 0, 0, 0)
    gc.collect()
    gc.freeze()
    end(played(become(*serve(sys.argv[1]))))
