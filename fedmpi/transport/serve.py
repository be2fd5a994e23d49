"""A worker's side: it answers rank 0 until rank 0 says stop."""

import contextlib
import os
import socket
import time
import traceback
from functools import partial
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from fedmpi.core import stop as stopping
from fedmpi.core.errors import FedError, UserError, WireError
from fedmpi.transport import groups, messages
from fedmpi.transport.base import named, pieces
from fedmpi.transport.heartbeat import Heartbeat
from fedmpi.transport.messages import READY
from fedmpi.transport.probe import be_probed
from fedmpi.transport.sharing import published, room, share
from fedmpi.transport.watch import SILENCE_S, START
from fedmpi.transport.wakeup import dozing
from fedmpi.wire.frame import pack

# Workers watch rank 0 with more patience than rank 0 watches them: it knows better, if it is alive.
START_PATIENCE = 1.5
# Rank 1 speaks for all workers; the others speak only if it does not.
OTHERS_PATIENCE = 1.25


class Links(NamedTuple):
    """A worker's ways to the other ranks."""

    comm: MPI.Comm
    # The communicators of ``messages.nodes``.
    nodes: tuple
    # The workers of this node.
    mates: MPI.Comm
    # Rank 0's process if it runs on this machine, else None.
    pid: int | None
    # How this rank waits for a message, see ``messages.wait``.
    nap: object
    # Its group, if several ranks train one client: a ``groups.Circle``.
    circle: object = None


def serve(version, make_worker, silence_s=SILENCE_S, see=lambda local: {}):
    """A worker's whole life: answer rank 0 until it says stop; returns the exit code.

    ``see(number among the node's workers)`` describes the rank's place for rank 0.
    """
    # Requests of messages out of order, kept until they are done.
    nudges = []
    start = time.monotonic()
    stopping.pass_on(lambda number: nudges.append(messages.nudge(0, number)))
    # This rank's work, and how an ended run goes on: for its last words.
    work = {"at": "starting", "goes_on": "", "host": "its host"}
    silence_s = _own_silence_s(silence_s)

    def lost(rank, seconds):
        _last_words(_lost_line(work, seconds))

    def patient():
        waited_s = time.monotonic() - start
        if waited_s > START_PATIENCE * START * silence_s > 0:
            lost(0, waited_s)

    worker, ready = _made(version, make_worker)
    nudges.append(MPI.COMM_WORLD.Isend([ready, MPI.BYTE], 0, READY))
    word = messages.answered(patient)
    # An exit code: rank 0 has found a mistake of the user's, and tells it.
    if word != messages.COME:
        nudges.append(messages.nudge(0, messages.GONE))
        MPI.Request.Waitall(nudges)
        return word
    # Rank 0 comes when it has read its data.
    comm = messages.duplicate(MPI.COMM_WORLD, patient)
    heartbeat = Heartbeat(messages.duplicate(MPI.COMM_WORLD, patient), [0], silence_s, lost)
    links = _links(comm)
    _send_place(links, see)
    return _answer_all(links, worker, work, heartbeat, nudges)


def _own_silence_s(silence_s):
    """Seconds until rank 0 counts as lost here."""
    if MPI.COMM_WORLD.rank == 1:
        return silence_s
    return OTHERS_PATIENCE * silence_s


def _lost_line(work, seconds):
    line = (f"error: rank {MPI.COMM_WORLD.rank} on {socket.gethostname()} ({work['at']}) has not heard rank 0 "
            f"on {work['host']} for {seconds:.0f} s and ends the job")
    if work["goes_on"]:
        line += f"; {work['goes_on']}"
    return line


def _made(version, make_worker):
    """``(worker, first message)``; if the worker fails, (None, its failure)."""
    try:
        worker = make_worker()
        meta = {"kind": "hello", "host": socket.gethostname(), "version": version}
        return worker, pack(meta, {"pid": np.array([os.getpid()])})
    except Exception as error:
        return None, _failure(error)


def _links(comm):
    """The ``Links``; rank 0 makes the same calls in the same order."""
    nodes = messages.nodes(comm)
    node, _ = nodes
    ranks_a_core = messages.crowding(node)
    pid = messages.server_process(comm)
    mates = messages.mates(node, comm)
    # Ranks sharing a core look less often, so that the others get more of it.
    longest_s = messages.LONGEST_S * max(1.0, ranks_a_core)
    is_woken = pid is not None
    nap = dozing(longest_s, is_woken)
    return Links(comm, nodes, mates, pid, nap)


def _send_place(links, see):
    first, local = messages.among(links.nodes[0], links.comm)
    try:
        place = see(local) | {"node": first}
        messages.send(links.comm, pack({"kind": "place", "place": place}, {}), 0)
    except Exception as error:
        messages.send(links.comm, _failure(error), 0)


def _answer_all(links, worker, work, heartbeat, nudges):
    """Answer one message after the other, until the exit code comes; ``work`` is kept up to date."""
    comm = links.comm
    while True:
        work["at"] = "waiting"
        with _or_abort():
            buffer, _ = messages.receive(comm, 0, nap=links.nap)
            meta, arrays = messages.opened(buffer, "a job or a call from rank 0 is")
        if meta["kind"] == "stop":
            groups.left(links.circle)
            _leave(comm, heartbeat, nudges)
            return meta["code"]
        work["at"] = _name_of(meta)
        if meta["kind"] == "share":
            work["host"] = meta["host"]
            work["goes_on"] = meta["meta"].get("goes_on", "")
        try:
            if meta["kind"] == "group":
                links = _joined(links, worker, meta)
            _answer(links, worker, meta, arrays, buffer)
        except Exception as error:
            messages.send(comm, _failure(error), 0, pid=links.pid)


def _name_of(meta):
    """The name of the work asked by a message."""
    if "job" in meta:
        return named(meta["job"])
    return meta.get("what", meta["kind"])


def _leave(comm, heartbeat, nudges):
    """Say goodbye to rank 0, and wait for everything still on its way."""
    stopping.ignore()
    MPI.COMM_WORLD.Recv([bytearray(0), MPI.BYTE], 0)
    messages.send(comm, pack({"kind": "bye"}, {}), 0)
    heartbeat.end()
    MPI.Request.Waitall(nudges)


def _joined(links, worker, meta):
    """The ``Links`` with this rank's group."""
    circle = groups.joined(links.comm, meta["ranks"], meta["backend"])
    worker.join(circle.group)
    return links._replace(circle=circle)


def _answer(links, worker, meta, arrays, buffer):
    """Do the work asked by a message, which came packed in ``buffer``."""
    kind = meta["kind"]
    if kind == "publish":
        _receive_published(links, worker, meta)
    elif kind == "share":
        _receive_shared(links, worker, meta)
    elif kind == "probe":
        be_probed(links.comm.Dup())
    elif kind == "total":
        _add_up(links, worker, meta)
    elif kind == "group":
        messages.send(links.comm, pack({"kind": "joined"}, {}), 0, pid=links.pid)
    elif kind == "follow":
        _follow(links, worker)
    elif kind == "run":
        # Rank 0's nudge: waiting jobs are dropped.
        is_dropped = MPI.COMM_WORLD.Iprobe(0)
        if links.circle is not None:
            is_theirs = not is_dropped and worker.divides(meta["job"])
            groups.hand_on(links.circle, buffer if is_theirs else groups.NOTHING)
        if not is_dropped:
            answer = messages.in_pieces(*worker.run(meta["job"], arrays))
            messages.send_pieces(links.comm, answer, 0, pid=links.pid)


def _follow(links, worker):
    """Work at the job of this rank's leader; the leader alone answers."""
    buffer = groups.handed(links.circle)
    if buffer is not None:
        meta, arrays = messages.opened(buffer, "a job from the leader of this rank's group is")
        worker.assist(meta["job"], arrays)


def _receive_published(links, worker, meta):
    with _or_abort():
        if "shared" in meta:
            buffer = published(links.nodes, meta["bytes"])
        else:
            buffer = np.empty(meta["bytes"], np.uint8)
            messages.broadcast(links.comm, buffer)
    subject = f"the message {meta['what']} from rank 0 is"
    message, arrays = messages.opened(buffer, subject)
    worker.receive(message, arrays)


def _receive_shared(links, worker, meta):
    with _or_abort():
        arrays = share(links.nodes, meta["table"])
    node, _ = links.nodes
    _, local = messages.among(node, links.comm)
    memory = partial(room, links.mates)
    message = meta["meta"] | {"local_rank": local, "memory": memory}
    worker.receive(message, arrays)


def _add_up(links, worker, meta):
    node, leaders = links.nodes
    levels = [messages.Adding(node)]
    if node.rank == 0:
        levels.append(messages.Adding(leaders))
    with _or_abort():
        for start, stop in pieces(meta["count"]):
            total = worker.total(start, stop)
            for level in levels:
                total, _ = level.up(total, stop - start)


@contextlib.contextmanager
def _or_abort():
    """Ends the job if the block fails: the other ranks wait in the same exchange, where no message reaches them."""
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
    """The message telling rank 0 of an exception."""
    if isinstance(error, (UserError, WireError)):
        trace = str(error)
    else:
        trace = "".join(traceback.format_exception(error))
    return pack({"kind": "error", "trace": trace, "user": isinstance(error, UserError)}, {})
