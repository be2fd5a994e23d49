"""The ranks of a run: server and workers, the transport between them, and their common end."""

import contextlib
import faulthandler
import gc
import math
import os
import signal
import time
import traceback
import warnings
from functools import partial

from fedmpi import __version__
from fedmpi.core import paths
from fedmpi.core import stop as stopping
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.errors import (BrokenOff, CheckpointError, FedError, LostRank, Stopped, UserError,
                                WorkerError)
from fedmpi.plugins.shadow import in_the_way
from fedmpi.run.devices import pick_device
from fedmpi.run.last_words import STARTING_MPI, NoLastWords
from fedmpi.run.launcher import check, check_world, rank_and_size
from fedmpi.transport import wakeup
from fedmpi.transport.watch import SILENCE_S, START, Limits

# Exit codes.
FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
# Seconds from one line about missing ranks to the next.
TOLD_S = 5


def on_ranks(play, make_worker, say, limits=Limits(), last_words=NoLastWords(),
             see=lambda local: {}, tell=None):
    """Call ``play(connect)`` on rank 0; every other rank serves with the worker of
    ``make_worker()``.

    ``connect()`` returns the transport to all workers. In one process this is a transport to a
    worker of its own, made by ``make_worker()``, or by ``make()`` after ``connect(make)``.

    A rank that stays silent beyond ``limits`` ends the run. ``see(local)`` describes a rank's
    place. ``tell(line)`` takes lines about the start, ``say(line)`` the error; without ``tell``,
    ``say`` takes both.

    Returns the exit code: play's, if it returns one.
    """
    tell = tell or say
    # One thread a rank, set before torch starts its pool.
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_freed_memory()
    check()
    rank, size = rank_and_size()
    if size != 1:
        wakeup.listen()
    if rank:
        return _work(make_worker, limits, see)
    stop = stopping.Stop()
    with stopping.heeding(stop):
        if size == 1:
            return _as_server(play, partial(_alone, make_worker, stop), say, None, last_words, 0.0)
        code = _lead(play, say, tell, stop, limits, last_words)
    # A signal that comes late must not spoil how MPI ends.
    stopping.ignore()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # MPI_Finalize waits for every rank: this limits the wait. 0 means no limit.
    signal.alarm(math.ceil(limits.silence_s))
    return code


def worker(parts=None):
    """This rank's ``Worker``, on one thread; in the process of rank 0 it shares its ``parts``."""
    with uncollected():
        import torch

        from fedmpi.build.worker import worker_parts
        from fedmpi.client.worker import Worker
    torch.set_num_threads(1)
    return Worker(partial(worker_parts, parts=parts), pick_device)


@contextlib.contextmanager
def uncollected():
    """Turn garbage collection off while libraries are imported, then freeze the new objects.

    Nearly all of them stay. Looking for garbage among them is a sixth of the processor time of
    importing torch. A process alone keeps its collection: it may do other things than a rank's
    work.
    """
    alone = rank_and_size()[1] == 1
    if not alone:
        gc.disable()
    yield
    if not alone:
        gc.freeze()
        gc.enable()


# ---------------------------------------------------------------- ranks and transports


def _work(make_worker, limits, see):
    """The part of a worker's rank: serve until rank 0 says stop. Returns the exit code."""
    # Rank 0 answers Ctrl-C, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # This rank cannot yet pass a stop signal on to rank 0.
    stopping.ignore()
    _mpi(limits.silence_s)
    from fedmpi.transport.serve import serve
    return serve(__version__, make_worker, limits.silence_s, see)


def _lead(play, say, tell, stop, limits, last_words):
    """The part of rank 0 among several ranks. Returns the exit code."""
    last_words.note(0, STARTING_MPI)
    try:
        mpi = _mpi(limits.silence_s)
    except UserError:
        last_words.leave()
        raise
    if limits.silence_s and not mpi.threads():
        tell("warning: this MPI has no MPI_THREAD_MULTIPLE, so a rank that hangs will not be "
             "noticed")
    ranks = rank_and_size()[1] or "several"
    tell(f"starting {ranks} ranks; each imports torch, which takes about 2 s of processor time a "
         "rank")

    def connect(make=None):
        return _connected(tell, stop, limits, last_words)

    return _as_server(play, connect, say, mpi, last_words, limits.silence_s or SILENCE_S)


def _connected(say, stop, limits, last_words):
    """The transport to the workers; returns when every rank is ready."""
    from fedmpi.transport.mpi import Mpi

    def tell(line):
        last_words.leave()
        say(line)

    transport = Mpi(__version__, _arrivals(say), stop, limits, last_words.note, tell)
    last_words.watch(_pids_here(transport))
    return transport


def _pids_here(transport):
    """``{rank: process id}`` of the ranks on rank 0's node."""
    here = transport.hosts[0]
    ranks = enumerate(zip(transport.hosts, transport.pids))
    return {rank: pid for rank, (host, pid) in ranks if host == here}


def _alone(make_worker, stop, make=None):
    """The transport to a worker in this process."""
    from fedmpi.transport.local import Local
    return Local((make or make_worker)(), stop)


def _arrivals(say):
    """``arrived(missing, size)``: tells the number of ready ranks, and the missing ones.

    Every few seconds.
    """
    last = time.perf_counter()

    def arrived(missing, size):
        nonlocal last
        now = time.perf_counter()
        if now - last <= TOLD_S:
            return
        last = now
        line = f"{size - len(missing)} of {size} ranks ready"
        if len(missing) < 10:
            ranks = ", ".join(map(str, sorted(missing)))
            line += f"; not yet: rank {ranks}"
        say(line)

    return arrived


def _mpi(silence_s):
    """The module ``transport.messages``, with MPI started.

    UserError if MPI is missing, or if the launcher belongs to another MPI.
    """
    try:
        # MPI_Init waits for every rank.
        with _limited(START * silence_s), warnings.catch_warnings():
            # mpi4py warns of another launcher's MPI; check_world says it in full.
            warnings.filterwarnings("ignore", "suspicious MPI")
            from fedmpi.transport import messages as mpi
    except (ImportError, RuntimeError) as error:
        line = " ".join(str(error).split())
        text = f"started by an MPI launcher, but mpi4py cannot load MPI: {line}"
        raise UserError(text) from error
    check_world(*mpi.world())
    return mpi


@contextlib.contextmanager
def _limited(seconds):
    """End the process, with a traceback, if the block takes longer than ``seconds``, even in C.

    0 means no limit.
    """
    if seconds:
        faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        if seconds:
            faulthandler.cancel_dump_traceback_later()


# ---------------------------------------------------------------- how it ends


def _as_server(play, connect, say, mpi, last_words, patience_s):
    """Rank 0's part: any error ends all ranks, and is told once. Returns the exit code."""
    # The transport, once the workers listen.
    transport = []

    def connected(make=None):
        transport.append(connect(make))
        return transport[0]

    try:
        code = play(connected) or 0
        for open_transport in transport:
            open_transport.close(code)
        last_words.leave()
        return code
    except (KeyboardInterrupt, Exception) as error:
        line, code, started = _told(error)
    # Goodbye only after this: the other process speaks if rank 0 dies here.
    say(line)
    last_words.leave()
    abort = partial(_abort, mpi, say)
    return _end(mpi, transport, code, started, patience_s, abort)


def _told(error):
    """``(line, exit code, whether clients may be at work)`` for the last error of a run."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; --resume goes on after the last checkpoint", INTERRUPTED, True
    if isinstance(error, Stopped):
        code = stopping.COME_BACK
        return f"{error} (exit code {code})", code, isinstance(error, BrokenOff)
    if isinstance(error, (UserError, CheckpointError)):
        return f"error: {error}{paths.perhaps_gone()}", MISTAKE, False
    if isinstance(error, WorkerError):
        return _told_of_worker(error)
    if isinstance(error, FedError):
        return f"error: {error}", FAILED, True
    if isinstance(error, (ImportError, AttributeError)):
        # A file of the user's may hide a library of the same name.
        why = in_the_way(error)
        if why:
            return f"error: {why}", MISTAKE, True
    return _traceback(error), FAILED, True


def _told_of_worker(error):
    """As ``_told``, of a worker's error."""
    trace = error.trace
    if error.user:
        return f"error: {trace}", MISTAKE, False
    between = "\n" if "\n" in trace else " "
    return f"error on rank {error.rank}:{between}{trace}", FAILED, True


def _traceback(error):
    return "".join(traceback.format_exception(error))


def _end(mpi, transport, code, started, patience_s, abort):
    """End the other ranks with ``code``, and return it.

    Waiting workers are let go. If workers may be at work (``started``), or do not go within
    ``patience_s``, ``abort(code)`` ends them.
    """
    if mpi is None:
        for open_transport in transport:
            open_transport.close(code)
        return code
    if started:
        abort(code)
        return code
    if not transport:
        # After an abort a launcher adds lines of its own: spare the user those after a mistake.
        let_go = code == MISTAKE and mpi.dismiss(code, patience_s)
        if not let_go:
            abort(code)
        return code
    try:
        transport[0].close(code, patience_s)
    except (BrokenOff, LostRank):
        # A client's task takes too long.
        abort(code)
    return code


def _abort(mpi, say, code):
    """Have MPI end all ranks. It and its launcher print lines of their own, whatever the code."""
    say("MPI ends the other ranks now; Abort(...), if it follows, is a line of MPI's own")
    mpi.abort(code)
