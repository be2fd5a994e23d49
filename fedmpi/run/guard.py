"""The last word where rank 0 cannot have it: when a rank is killed a launcher kills all others at once, rank 0 too.

A process forked before MPI and torch are loaded, in a session of its own. It holds standard error, one end of a pipe
whose other end only rank 0 holds, and a page of memory in which rank 0 notes what every rank is at; it sleeps until the
pipe closes, then says one line, writes nothing else, and is gone. Where rank 0 ends by itself it says nothing.
"""

import contextlib
import mmap
import os
import select
import signal

from fedmpi.core import paths
from fedmpi.run.launcher import find_launcher

STARTING_MPI = "starting MPI"
SLOT, SLOTS = 128, 1024       # bytes of a note; ranks that have one
RUN = SLOT * SLOTS            # where the run file's name lies
END = RUN + 4096


class NoGuard:
    """Where nobody keeps watch: in one process the shell says what killed it, on other ranks rank 0 does."""

    def note(self, rank, text):
        """Rank 0 knows that ``rank`` is at that now."""

    def run(self, path, exists):
        """The run file, and whether it can be resumed already."""

    def watch(self, pids):
        """``{rank: process id}`` of the ranks of this node."""

    def leave(self):
        """Whatever happens from now on was told."""


class Guard(NoGuard):
    """To be made on rank 0 before MPI and torch are loaded, while the process has one thread."""

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
        _write(self.memory, RUN, f"fedmpi train --resume {name} goes on" if exists else f"{name} was not begun",
               END - RUN)

    def watch(self, pids):
        self._tell("".join(f"{rank} {pid}\n" for rank, pid in pids.items() if rank))

    def leave(self):
        if self.pid:
            self._tell("bye\n")
            os.close(self.pipe)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _tell(self, text):
        with contextlib.suppress(BrokenPipeError):         # somebody killed it: the run goes on without a last word
            os.write(self.pipe, text.encode())


def _write(memory, start, text, room):
    memory[start: start + room] = text.encode(errors="surrogateescape")[: room - 1].ljust(room, b"\0")


def _read(memory, start, room):
    return memory[start: start + room].rstrip(b"\0").decode(errors="surrogateescape")


def _keep_watch(pipe, memory):
    """The guard's whole life; never returns."""
    try:
        os.setsid()
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(number, signal.SIG_IGN)
        handle = os.dup2(pipe, 3)
        os.closerange(0, 2)                                # the launcher waits for whoever holds them, or its sockets
        os.closerange(4, 1 << 16)
        first = _first_dead(handle)
        if first is not None:
            os.write(2, f"{_line(memory, first)}\n".encode(errors="surrogateescape"))
    finally:
        os._exit(0)


def _first_dead(pipe):
    """``{rank: process id}`` of the ranks of this node that were found dead first, once rank 0 is dead; None after a
    goodbye."""
    received, ranks, dead, poll = b"", {}, {}, select.poll()
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
    """``{handle: (rank, process id)}``, a handle becomes readable when its process dies; empty before Linux 5.3."""
    found = {}
    for rank, pid in (map(int, line.split()) for line in lines.split(b"\n") if line):
        try:
            found[os.pidfd_open(pid)] = rank, pid
        except (OSError, AttributeError):
            continue
    return found


def _line(memory, dead):
    """What is told of a job that was ended from outside."""
    resume = _read(memory, RUN, END - RUN)
    at = {rank: _read(memory, SLOT * rank, SLOT) if rank < SLOTS else "unknown" for rank in [0, *dead]}
    host = os.uname().nodename
    if len(dead) == 1:
        (rank, pid), = dead.items()
        who = f"rank {rank} on {host} (process {pid}) died, last known work: {at[rank]}; the launcher ended the job"
    elif dead:
        pids = ", ".join(f"{rank} (process {pid})" for rank, pid in dead.items())
        who = (f"the job was killed, rank 0 at {at[0]}, and with it ranks {pids} on {host}; the launcher may name the "
               "first")
    elif at[0] == STARTING_MPI:
        who = (f"rank 0 on {host} died while it started MPI: where this launcher is of another MPI than mpi4py loads, "
               f"start by {find_launcher('mpirun') or 'the mpirun of that MPI'}")
    else:
        who = f"rank 0 on {host} died or was killed, last known work: {at[0]}"
    return f"error: {who}; {resume}" if resume else f"error: {who}"
