"""The ranks of a run: who serves and who works, what carries their messages, and how errors end them all."""

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
from fedmpi.run.guard import STARTING_MPI, NoGuard
from fedmpi.run.launcher import check, check_world, rank_and_size
from fedmpi.transport import bell
from fedmpi.transport.watch import SILENCE_S, START, Limits

# Exit codes.
FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
TOLD_S = 5      # from one line about ranks that are missing to the next


def on_ranks(play, make_worker, say, limits=Limits(), guard=NoGuard(), see=lambda local: {}, tell=None):
    """``play(connect)`` on rank 0, where ``connect()`` returns the transport to the workers that every other rank makes
    and serves with; in one process the transport to a worker of its own, which ``connect(make)`` makes by ``make()``
    instead. A rank that others have waited for beyond ``limits`` ends the run. ``see(local)`` is what a rank tells of
    its place. Returns the exit code, which is play's where it gives one. ``tell`` takes the lines about the start,
    ``say`` where none is given."""
    tell = tell or say
    # One thread a rank, set before torch starts its pool.
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_freed_memory()
    check()
    rank, size = rank_and_size()
    if size != 1:
        bell.listen()
    if rank:
        return _work(make_worker, limits, see)
    stop = stopping.Stop()
    with stopping.heeding(stop):
        if size == 1:
            return _as_server(play, partial(_alone, make_worker, stop), say, None, guard, 0.0)
        code = _lead(play, say, tell, stop, limits, guard)
    # A signal that comes late must not spoil how MPI ends.
    stopping.ignore()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # MPI_Finalize waits for every rank; 0: for ever.
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
    """Turn garbage collection off while libraries are imported, then freeze what was made: nearly all of it stays, and
    to look for garbage in it is a sixth of the processor time of importing torch. Only where the process is a rank and
    nothing else."""
    alone = rank_and_size()[1] == 1
    if not alone:
        gc.disable()
    yield
    if not alone:
        gc.freeze()
        gc.enable()


# ---------------------------------------------------------------- ranks and transports


def _work(make_worker, limits, see):
    """The part of a rank other than 0: serve until rank 0 says stop. Returns the exit code."""
    # Ctrl-C is rank 0's to answer; it ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Until this rank can pass it on.
    stopping.ignore()
    _mpi(limits.silence_s)
    from fedmpi.transport.serve import serve
    return serve(__version__, make_worker, limits.silence_s, see)


def _lead(play, say, tell, stop, limits, guard):
    """The part of rank 0 where there are others. Returns the exit code."""
    guard.note(0, STARTING_MPI)
    try:
        mpi = _mpi(limits.silence_s)
    except UserError:
        guard.leave()
        raise
    if limits.silence_s and not mpi.threads():
        tell("warning: this MPI has no MPI_THREAD_MULTIPLE, so a rank that hangs will not be noticed")
    ranks = rank_and_size()[1] or "several"
    tell(f"starting {ranks} ranks; each imports torch, which takes about 2 s of processor time a rank")

    def connect(make=None):
        return _connected(tell, stop, limits, guard)

    return _as_server(play, connect, say, mpi, guard, limits.silence_s or SILENCE_S)


def _connected(say, stop, limits, guard):
    """The transport, once every rank is ready."""
    from fedmpi.transport.mpi import Mpi

    def tell(line):
        guard.leave()
        say(line)

    transport = Mpi(__version__, _arrivals(say), stop, limits, guard.note, tell)
    here = transport.hosts[0]
    places = enumerate(zip(transport.hosts, transport.pids))
    guard.watch({rank: pid for rank, (host, pid) in places if host == here})
    return transport


def _alone(make_worker, stop, make=None):
    """The transport to a worker in this process."""
    from fedmpi.transport.local import Local
    return Local((make or make_worker)(), stop)


def _arrivals(say):
    """A callback that tells, every few seconds, how many ranks have arrived, and who is missing."""
    last = time.perf_counter()

    def arrived(missing, size):
        nonlocal last
        now = time.perf_counter()
        if now - last <= TOLD_S:
            return
        last = now
        line = f"{size - len(missing)} of {size} ranks ready"
        if len(missing) < 10:
            line += f"; not yet: rank {', '.join(map(str, sorted(missing)))}"
        say(line)

    return arrived


def _mpi(silence_s):
    """MPI as ``transport.messages`` offers it; UserError where MPI is missing or is not the one whose launcher started
    us."""
    try:
        # MPI_Init waits for every rank.
        with _limited(START * silence_s), warnings.catch_warnings():
            # mpi4py's own; check_world says it in full.
            warnings.filterwarnings("ignore", "suspicious MPI")
            from fedmpi.transport import messages as mpi
    except (ImportError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"started by an MPI launcher, but mpi4py cannot load MPI: {line}") from error
    check_world(*mpi.world())
    return mpi


@contextlib.contextmanager
def _limited(seconds):
    """Where the block, in C, takes longer than that, the process ends with a line that says where; 0: no limit."""
    if seconds:
        faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        if seconds:
            faulthandler.cancel_dump_traceback_later()


# ---------------------------------------------------------------- how it ends


def _as_server(play, connect, say, mpi, guard, patience_s):
    """Rank 0's part: whatever fails ends all ranks, and is told once, by the guard where this process could not."""
    # Filled as soon as workers listen.
    transport = []

    def connected(make=None):
        transport.append(connect(make))
        return transport[0]

    try:
        code = play(connected) or 0
        for each in transport:
            each.close(code)
        guard.leave()
        return code
    except (KeyboardInterrupt, Exception) as error:
        line, code, started = _told(error)
    say(line)
    guard.leave()
    return _end(mpi, transport, code, started, patience_s)


def _told(error):
    """``(line, exit code, whether clients may be at work)`` of whatever ended the run."""
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
    why = in_the_way(error) if isinstance(error, (ImportError, AttributeError)) else ""
    if why:
        return f"error: {why}", MISTAKE, True
    return _traceback(error), FAILED, True


def _told_of_worker(error):
    """As ``_told``, of what a worker has raised."""
    if error.user:
        return f"error: {error.trace}", MISTAKE, False
    between = "\n" if "\n" in error.trace else " "
    return f"error on rank {error.rank}:{between}{error.trace}", FAILED, True


def _traceback(error):
    return "".join(traceback.format_exception(error))


def _end(mpi, transport, code, started, patience_s):
    """Let waiting workers go with ``code``; abort where they may be at work, or do not go within ``patience_s``. After
    a user's mistake nobody is aborted who can be let go: a launcher would add lines of its own to ours."""
    if mpi is None:
        for each in transport:
            each.close(code)
        return code
    if started or not transport:
        mistake = code == MISTAKE and not started
        if not (mistake and mpi.dismiss(code, patience_s)):
            mpi.abort(code)
        return code
    try:
        transport[0].close(code, patience_s)
    except (BrokenOff, LostRank):
        # A client's task that takes too long.
        mpi.abort(code)
    return code
