"""One last line for the user if rank 0 is killed: a launcher kills all ranks at once when one dies.

A witness speaks it: a process forked before MPI and torch are loaded, in a session of its own. It
holds standard error, one end of a pipe and some shared memory. Only rank 0 holds the pipe's other
end; it notes the work of every rank in the memory. The witness sleeps until the pipe closes, then
prints one line and ends. If rank 0 ends by itself, it says goodbye first, and the witness prints
nothing.
"""

import contextlib
import mmap
import os
import select
import signal

from fedmpi.core import paths
from fedmpi.run.launcher import find_launcher

STARTING_MPI = "starting MPI"
# Bytes of a note about a rank's work, and the number of ranks with one.
SLOT, SLOTS = 128, 1024
# Offset of the text about the run file, and its end.
RUN = SLOT * SLOTS
END = RUN + 4096


class NoLastWords:
    """No witness: a shell names the signal of one process, and rank 0 speaks for other ranks."""

    def note(self, rank, text):
        """Note the work of ``rank``, as far as rank 0 knows."""

    def run(self, path, exists):
        """Note the run file, and whether it can be resumed already."""

    def watch(self, pids):
        """Watch the ranks of this node, ``{rank: process id}``."""

    def leave(self):
        """Say goodbye: the user has been told how the run ended."""


class LastWords(NoLastWords):
    """Rank 0's side. Make it before MPI and torch are loaded: with one thread."""

    def __init__(self):
        self.memory = mmap.mmap(-1, END)
        reader, self.pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _keep_watch(reader, self.memory)
        os.close(reader)

    def note(self, rank, text):
        if rank < SLOTS:
            _write(self.memory, SLOT * rank, text, SLOT)

    def run(self, path, exists):
        name = paths.typed(path)
        text = f"{name} was not begun"
        if exists:
            text = f"fedmpi train --resume {name} goes on"
        _write(self.memory, RUN, text, END - RUN)

    def watch(self, pids):
        others = [f"{rank} {pid}\n" for rank, pid in pids.items() if rank]
        self._tell("".join(others))

    def leave(self):
        if self.pid:
            self._tell("bye\n")
            os.close(self.pipe)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _tell(self, text):
        # Somebody may have killed the witness: the run goes on without it.
        with contextlib.suppress(BrokenPipeError):
            os.write(self.pipe, text.encode())


def _write(memory, start, text, room):
    encoded = text.encode(errors="surrogateescape")
    memory[start: start + room] = encoded[: room - 1].ljust(room, b"\0")


def _read(memory, start, room):
    encoded = memory[start: start + room].rstrip(b"\0")
    return encoded.decode(errors="surrogateescape")


def _keep_watch(pipe, memory):
    """The witness's whole life; never returns."""
    try:
        os.setsid()
        _ignore_signals()
        handle = os.dup2(pipe, 3)
        # Keep standard error and the pipe: a launcher waits until its own files and sockets are
        # closed everywhere.
        os.closerange(0, 2)
        os.closerange(4, 1 << 16)
        dead = _first_dead(handle)
        if dead is not None:
            line = _line(memory, dead)
            os.write(2, f"{line}\n".encode(errors="surrogateescape"))
    finally:
        os._exit(0)


def _ignore_signals():
    needed = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
    for number in set(signal.valid_signals()) - needed:
        signal.signal(number, signal.SIG_IGN)


def _first_dead(pipe):
    """``{rank: process id}`` of this node's first dead ranks, once rank 0 is dead.

    None after a goodbye.
    """
    received = b""
    ranks, dead = {}, {}
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        ready = {handle for handle, _ in poll.poll()}
        if not dead:
            dead = {rank: pid for handle, (rank, pid) in ranks.items() if handle in ready}
        for handle in ready - {pipe}:
            poll.unregister(handle)
        if pipe not in ready:
            continue
        more = os.read(pipe, 1 << 16)
        if not more:
            return dead
        received += more
        if received.endswith(b"bye\n"):
            return None
        if received.endswith(b"\n"):
            ranks = _opened(received)
            for handle in ranks:
                poll.register(handle, select.POLLIN)


def _opened(lines):
    """``{handle: (rank, process id)}``: a handle becomes readable when its process dies.

    Empty before Linux 5.3.
    """
    handles = {}
    for line in lines.splitlines():
        rank, pid = map(int, line.split())
        try:
            handle = os.pidfd_open(pid)
        except (OSError, AttributeError):
            continue
        handles[handle] = rank, pid
    return handles


def _line(memory, dead):
    """The last line, by the first deaths on this node: ``dead {rank: process id}``."""
    resume = _read(memory, RUN, END - RUN)
    line = f"error: {_cause(memory, dead)}"
    if not resume:
        return line
    return f"{line}; {resume}"


def _cause(memory, dead):
    """How the job ended, as far as the witness knows."""
    host = os.uname().nodename
    at_0 = _work(memory, 0)
    if len(dead) == 1:
        (rank, pid), = dead.items()
        died = f"rank {rank} on {host} (process {pid}) died"
        return f"{died}, last known work: {_work(memory, rank)}; the launcher ended the job"
    if dead:
        pids = ", ".join(f"{rank} (process {pid})" for rank, pid in dead.items())
        killed = f"the job was killed, rank 0 at {at_0}, and with it ranks {pids} on {host}"
        return f"{killed}; the launcher may name the first"
    if at_0 == STARTING_MPI:
        mpirun = find_launcher("mpirun") or "the mpirun of that MPI"
        return (f"rank 0 on {host} died while it started MPI: where this launcher is of another "
                f"MPI than mpi4py loads, start by {mpirun}")
    return f"rank 0 on {host} died or was killed, last known work: {at_0}"


def _work(memory, rank):
    """Rank 0's last note about the work of a rank."""
    if rank >= SLOTS:
        return "unknown"
    return _read(memory, SLOT * rank, SLOT)
