"""A worker's side: it answers rank 0 until that says stop."""

import contextlib
import os
import socket
import time
import traceback

import numpy as np
from mpi4py import MPI

from fedmpi.core import stop as stopping
from fedmpi.core.errors import FedError, UserError, WireError
from fedmpi.transport import messages
from fedmpi.transport.base import named
from fedmpi.transport.bell import dozing
from fedmpi.transport.heart import Heart
from fedmpi.transport.messages import READY
from fedmpi.transport.probe import be_probed
from fedmpi.transport.sharing import share
from fedmpi.transport.watch import SILENCE_S, START
from fedmpi.wire.frame import pack


def serve(version, make_worker, silence_s=SILENCE_S, see=lambda local: {}):
    """A worker's whole life: answer rank 0 until it says stop; returns the exit code. ``see(number among the node's
    workers)`` is what rank 0 is told of the rank's place."""
    nudges, start = [], time.monotonic()
    stopping.pass_on(lambda number: nudges.append(messages.nudge(0, number)))
    work, worker = {"at": "starting", "goes_on": "", "host": "its host"}, None

    def lost(rank, seconds):
        _last_words(f"error: rank {MPI.COMM_WORLD.rank} on {socket.gethostname()} ({work['at']}) has not heard rank 0 "
                    f"on {work['host']} for {seconds:.0f} s and ends the job" + (
                        work["goes_on"] and f"; {work['goes_on']}"))

    def patient():
        if time.monotonic() - start > 1.5 * _later(START * silence_s) > 0:    # rank 0 knows better, if it lives
            lost(0, time.monotonic() - start)

    try:
        worker = make_worker()
        ready = pack({"kind": "hello", "host": socket.gethostname(), "version": version},
                     {"pid": np.array([os.getpid()])})
    except Exception as error:
        ready = _failure(error)
    nudges.append(MPI.COMM_WORLD.Isend([ready, MPI.BYTE], 0, READY))
    word = messages.answered(patient)
    if word != messages.COME:                                     # a mistake of the user's, which rank 0 tells
        nudges.append(messages.nudge(0, messages.GONE))
        MPI.Request.Waitall(nudges)
        return word
    comm = messages.duplicate(MPI.COMM_WORLD, patient)            # rank 0 comes when it has read its data
    heart = Heart(messages.duplicate(MPI.COMM_WORLD, patient), [0], _later(silence_s), lost)
    shared = messages.nodes(comm)
    crowding = messages.crowding(shared[0])
    pid = messages.server_process(comm)
    nap = dozing(messages.LONGEST_S * max(1.0, crowding), pid is not None)
    first, local = messages.among(shared[0], comm)
    try:
        messages.send(comm, pack({"kind": "place", "place": see(local) | {"node": first}}, {}), 0)
    except Exception as error:
        messages.send(comm, _failure(error), 0)
    return _answer_all(comm, worker, work, shared, heart, nudges, nap, pid)


def _later(silence_s):
    """Rank 1 speaks for all workers; the others only if it does not."""
    return silence_s * (1 if MPI.COMM_WORLD.rank == 1 else 1.25)


def _answer_all(comm, worker, work, shared, heart, nudges, nap, pid):
    """Answer one message after the other; ``work`` says at what this rank is, ``nap`` how it waits for one, ``pid`` is
    rank 0's process where it is on this machine."""
    while True:
        work["at"] = "waiting"
        with _or_abort():
            buffer = messages.receive(comm, 0, nap=nap)[0]
            meta, arrays = messages.opened(buffer, "a job or a call from rank 0 is")
        if meta["kind"] == "stop":
            stopping.ignore()
            MPI.COMM_WORLD.Recv([bytearray(0), MPI.BYTE], 0)
            messages.send(comm, pack({"kind": "bye"}, {}), 0)
            heart.end()
            MPI.Request.Waitall(nudges)
            return meta["code"]
        work["at"] = named(meta["job"]) if "job" in meta else meta.get("what", meta["kind"])
        if meta["kind"] == "share":
            work |= {"host": meta["host"], "goes_on": meta["meta"].get("goes_on", "")}
        try:
            _answer(comm, worker, meta, arrays, shared, pid)
        except Exception as error:
            messages.send(comm, _failure(error), 0, pid=pid)


def _answer(comm, worker, meta, given, shared, pid):
    """Do what a message asks; ``shared`` are the communicators of ``nodes``, ``pid`` as above."""
    if meta["kind"] == "publish":
        with _or_abort():
            buffer = np.empty(meta["bytes"], np.uint8)
            messages.broadcast(comm, buffer)
        worker.receive(*messages.opened(buffer, f"the message {meta['what']} from rank 0 is"))
    elif meta["kind"] == "share":
        with _or_abort():
            arrays = share(shared, meta["table"])
        worker.receive(meta["meta"] | {"local_rank": messages.among(shared[0], comm)[1]}, arrays)
    elif meta["kind"] == "probe":
        be_probed(comm.Dup())
    elif meta["kind"] == "total":
        with _or_abort():
            total, _ = messages.add_up(shared[0], worker.total(meta["count"]))
            if shared[0].rank == 0:
                messages.add_up(shared[1], total)
    elif meta["kind"] == "run" and not MPI.COMM_WORLD.Iprobe(0):
        messages.send(comm, pack(*worker.run(meta["job"], given)), 0, pid=pid)


@contextlib.contextmanager
def _or_abort():
    """What fails in here fails while the other ranks wait in the same exchange, where no message reaches them."""
    try:
        yield
    except FedError as error:
        _last_words(f"error on rank {MPI.COMM_WORLD.rank} on {socket.gethostname()}: {error}")
    except Exception:
        traceback.print_exc()
        messages.abort(1)


def _last_words(line):
    """One line, from whatever thread, and the end of the job."""
    os.write(2, f"{line}\n".encode(errors="surrogateescape"))
    messages.abort(1)


def _failure(error):
    """The message that tells rank 0 of an exception."""
    own = isinstance(error, (UserError, WireError))
    trace = str(error) if own else "".join(traceback.format_exception(error))
    return pack({"kind": "error", "trace": trace, "user": isinstance(error, UserError)}, {})
