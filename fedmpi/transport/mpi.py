"""The transport over MPI: rank 0 serves, every other rank works. The only module that imports mpi4py.

Waiting is polite: a rank that waits probes, then sleeps for a tenth of the time it has waited so far, 5 ms at most, so
a wait costs next to no processor and delays by a tenth at most. Control and jobs go point to point, what every worker
needs along a
tree. A worker's exception travels to rank 0 as a message; an exception on rank 0 aborts the job. Beside all that, in
COMM_WORLD itself, go a worker's first message and, out of order, empty ones: its signal to rank 0, and rank 0's word
that jobs that still wait are dropped. And in a communicator of their own go the beats by which rank 0 and each worker
know of each other that they live.
"""

import contextlib
import ctypes
import os
import socket
import sys
import tempfile
import threading
import time
import traceback

import mpi4py
import numpy as np
from mpi4py import MPI

from fedmpi import stop as stopping
from fedmpi.errors import DiskError, FedError, LostRank, UserError, WireError, WorkerError
from fedmpi.transport.base import Reply, named
from fedmpi.transport.watch import SILENCE_S, START, Limits, Watch
from fedmpi.wire.frame import checksum, pack, unpack

CHUNK = 1 << 30           # bytes a message, below the 2^31 that older MPI libraries count
LAST, MORE, TREE = 1, 2, 3  # tags: a message's last chunk, one that others follow, a broadcast
BEAT, LEAVE = 1, 2        # tags of beats: one of many, the last
READY = 1000              # tag of a first message, above every signal's number
PROBED = 64               # workers, at most, that a probe asks one by one
AHEAD = 2                 # jobs a worker holds while others wait in the queue


def wait(done, check=lambda: None, longest=0.005):
    """Call ``done()`` until it is true, sleeping in between; ``check()`` raises where waiting is in vain."""
    start = time.perf_counter()
    while not done():
        check()
        waited = time.perf_counter() - start
        time.sleep(min(waited / 10, longest) if waited > 5e-5 else 0)


def send(comm, buffer, rank, check=lambda: None):
    """Send ``buffer (bytes,) uint8`` to ``rank`` in chunks; ``check`` as for ``wait``, here and below."""
    requests = post(comm, buffer, rank)
    wait(lambda: MPI.Request.Testall(requests), check)


def post(comm, buffer, rank):
    """The requests of a ``send`` that is not waited for; the buffer must stay until they are done."""
    return [comm.Isend([buffer[s: s + CHUNK], MPI.BYTE], rank, MORE if s + CHUNK < len(buffer) else LAST)
            for s in range(0, len(buffer), CHUNK)]


def receive(comm, source=MPI.ANY_SOURCE, check=lambda: None, tag=MPI.ANY_TAG):
    """``(buffer, source)`` of the next message."""
    parts, status = [], MPI.Status()
    while True:
        found = []
        wait(lambda: (m := comm.Improbe(source, tag, status)) is not None and not found.append(m), check)
        part = np.empty(status.Get_count(MPI.BYTE), np.uint8)
        found[0].Recv([part, MPI.BYTE])
        parts.append(part)
        source = status.Get_source()
        if status.Get_tag() != MORE:
            return parts[0] if len(parts) == 1 else np.concatenate(parts), source


def broadcast(comm, buffer, check=lambda: None):
    """Rank 0's ``buffer`` into everybody's, along a binomial tree. With 33 ranks on 2 cores this took 20 ms for 0.5 MB
    and 52 ms for 6.3 MB; MPI's own Bcast, whose ranks spin, 144 and 173 ms."""
    rank, size = comm.rank, comm.size
    nearest = rank & -rank if rank else 1 << 30
    children = [rank + step for step in (1 << bit for bit in range(29, -1, -1)) if step < nearest and rank + step < size]
    for start in range(0, len(buffer), CHUNK):
        part = [buffer[start: start + CHUNK], MPI.BYTE]
        if rank:
            request = comm.Irecv(part, rank & (rank - 1), TREE)
            wait(request.Test, check)
        requests = [comm.Isend(part, child, TREE) for child in children]
        wait(lambda: MPI.Request.Testall(requests), check)


def add_up(comm, buffer, check=lambda: None):
    """Add everybody's ``buffer (n,) int64`` up in rank 0's, along a binomial tree; the others' are spoilt. Returns the
    bytes that this rank received."""
    rank, step, received = comm.rank, 1, 0
    while step < comm.size:
        if rank & step:
            send(comm, buffer.view(np.uint8), rank - step, check)
            break
        if rank + step < comm.size:
            buffer += receive(comm, rank + step, check)[0].view(np.int64)
            received += buffer.nbytes
        step *= 2
    return received


def nudge(rank, number=0):
    """Send ``rank`` an empty message out of order; it is on its way when this returns."""
    return MPI.COMM_WORLD.Isend([bytearray(0), MPI.BYTE], rank, number)


def barrier(comm, check=lambda: None):
    """Wait, politely, until every rank is here."""
    request = comm.Ibarrier()
    wait(request.Test, check)


def duplicate(comm, check=lambda: None):
    """``comm``'s ranks with a traffic of their own; waits, politely, until all have asked for it."""
    copy, request = comm.Idup()
    wait(request.Test, check)
    return copy


def world():
    """``(rank, size)`` as MPI itself sees them."""
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


def threads():
    """Whether this MPI lets a second thread send beats; without, ranks that hang are not noticed."""
    return MPI.Query_thread() == MPI.THREAD_MULTIPLE


class Heart:
    """Beats to and from every peer, in a communicator and a thread of their own, a few in the time of silence. A rank
    whose main thread works for minutes beats on; one that is dead, stopped or out of reach does not."""

    def __init__(self, comm, peers, silence_s, lost):
        """``lost(peer, seconds)`` is called in the thread, again and again, while ``peer`` is silent for too long."""
        self.comm, self.peers, self.lost, self.sent, self.lock = comm, list(peers), lost, {}, threading.Lock()
        self.watch = Watch(peers, silence_s, time.monotonic())
        self.leaving, self.ended = False, threading.Event()
        self.thread = threading.Thread(target=self._beat, name="heart", daemon=True)
        if silence_s and threads():
            self.thread.start()

    def _beat(self):
        while not self.ended.wait(self.watch.interval_s):
            with self.lock:
                self._hear()
                self._send()
                silent = self.watch.silent(time.monotonic())
            for peer, seconds in silent.items():
                self.lost(peer, seconds)

    def _hear(self):
        status = MPI.Status()
        while self.comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            self.comm.Recv([bytearray(0), MPI.BYTE], status.source, status.tag)
            self.watch.hear(status.source, time.monotonic())
            if status.tag == LEAVE:
                self.watch.leave(status.source)

    def _send(self):
        """To every peer that took the last one: those that do not listen get no more."""
        for peer in self.peers:
            if not self.leaving and (peer not in self.sent or self.sent[peer].Test()):
                self.sent[peer] = self.comm.Isend([bytearray(0), MPI.BYTE], peer, BEAT)

    def _left(self):
        with self.lock:
            self._hear()
            return not self.watch.heard

    def end(self, check=lambda: None):
        """Say goodbye, and wait until every peer has: what was sent has arrived then."""
        with self.lock:
            last = [self.comm.Isend([bytearray(0), MPI.BYTE], peer, LEAVE) for peer in self.peers]
            self.leaving = True
        wait(self._left, check)
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join()
        MPI.Request.Waitall([*last, *self.sent.values()])


class Mpi:
    """Rank 0's side."""

    def __init__(self, version, arrived=lambda missing, size: None, stop=None, limits=Limits(),
                 note=lambda rank, text: None, tell=lambda line: None):
        """Waits until every rank is ready: ``arrived(missing, size)`` hears time and again which are not. ``note(rank,
        text)`` hears what each rank does from now on; ``tell(line)`` the last words before the job is aborted."""
        self.size, self.stop, self.note, self.tell = MPI.COMM_WORLD.size, stop or stopping.Stop(), note, tell
        self.silence_s, self.task_s = limits
        self.versions = {"mpi4py": mpi4py.__version__, "mpi": MPI.Get_library_version().partition("\n")[0].strip("\0 ")}
        self.workers = range(1, self.size)
        self.sent = self.received = 0
        self.nodes = self.round = self.gone = None
        self.unanswered = False                          # a map was given up before all answers came
        self.posted, self.places = [], {}                # (buffer, requests) of jobs that may still be on their way
        self.hosts, self.pids = [socket.gethostname()] * self.size, [os.getpid()] * self.size
        self.work = {rank: ("getting ready", time.monotonic()) for rank in range(self.size)}
        self._gather(version, arrived)

    def _gather(self, version, arrived):
        """Wait until every rank is ready, and for the communicators."""
        start, missing = time.monotonic(), set(self.workers)

        def patient():
            arrived(missing, self.size)
            if time.monotonic() - start > START * self.silence_s > 0:
                who = (", ".join(map(str, sorted(missing)[:10])) or "unknown") + ", ..." * (len(missing) > 10)
                raise LostRank(f"{self.size - len(missing)} of {self.size} ranks are ready after "
                               f"{START * self.silence_s:.0f} s ({START} times --silence), not: rank {who}")

        while missing:
            meta, arrays, rank = self._opened(*receive(MPI.COMM_WORLD, check=patient, tag=READY))
            self.hosts[rank], self.pids[rank] = meta["host"], int(arrays["pid"][0])
            if meta["version"] != version:
                raise UserError(f"rank {rank} on {meta['host']} runs fedmpi {meta['version']}, rank 0 {version}")
            self._does(rank, "waiting")
            missing -= {rank}
        self.comm = duplicate(MPI.COMM_WORLD, patient)
        self.heart = Heart(duplicate(MPI.COMM_WORLD, patient), self.workers, self.silence_s, self._lost)
        self.nodes = nodes(self.comm)
        for _ in self.workers:
            meta, _, rank = self._receive()
            self.places[rank] = meta["place"]

    def _does(self, rank, text):
        self.work[rank] = text, time.monotonic()
        self.note(rank, text)

    def _lost(self, rank, seconds):
        """In the heart's thread. A main thread that does not answer, as it is blocked itself, is not waited for."""
        if self.gone is None:
            text, since = self.work[rank]
            self.gone = (f"rank {rank} on {self.hosts[rank]} has been silent for {seconds:.0f} s, last known work: {text} "
                         f"({time.monotonic() - since:.0f} s ago)")
            self.answered, self.by = False, time.monotonic() + self.silence_s
        elif not self.answered and time.monotonic() > self.by:
            self.tell(f"error: {self.gone}; rank 0 is blocked at {self.work[0][0]}")
            abort(1)

    def check(self):
        """Raises LostRank where another rank is lost."""
        if self.gone is not None:
            self.answered = True
            raise LostRank(self.gone)

    def _overdue(self, ranks):
        """Raises LostRank where one of ``ranks`` has been at its job for too long: it may live and yet never end."""
        for rank in ranks:
            text, since = self.work[rank]
            if self.task_s and time.monotonic() - since > self.task_s:
                raise LostRank(f"rank {rank} on {self.hosts[rank]} has been at {text} for {time.monotonic() - since:.3g} s, "
                               f"longer than --task-limit {self.task_s:g}")

    def _send(self, meta, rank, arrays={}):
        buffer = pack(meta, arrays)
        self.sent += len(buffer)
        send(self.comm, buffer, rank, self.check)
        return len(buffer)

    def _post(self, meta, rank, arrays):
        """As ``_send``, without waiting: the worker may be sending, too, and wait for us."""
        buffer = pack(meta, arrays)
        self.sent += len(buffer)
        self.posted.append((buffer, post(self.comm, buffer, rank)))
        return len(buffer)

    def _receive(self):
        return self._opened(*receive(self.comm, check=self.check))

    def _opened(self, buffer, rank):
        self.received += len(buffer)
        meta, arrays = _opened(buffer, f"a message from rank {rank} on {self.hosts[rank]}, at {self.work[rank][0]}, is")
        if meta.get("kind") == "error":
            raise WorkerError(rank, meta["trace"], meta["user"])
        self.reply_bytes = len(buffer)
        return meta, arrays, rank

    def share(self, meta, arrays):
        """Give every rank of every node the same message, its arrays read-only and once a node. ``goes_on`` in ``meta``
        says how a run that was ended goes on, for a worker's last words."""
        table = [[name, array.dtype.str, list(array.shape), _sum(array)] for name, array in arrays.items()]
        self._does(0, "sharing the data")
        for rank in self.workers:
            self._does(rank, "receiving the data")
            self._send({"kind": "share", "host": self.hosts[0], "table": table, "meta": meta}, rank)
        self.sent += sum(array.nbytes for array in arrays.values())
        _share(self.nodes, table, arrays, self.check)

    def publish(self, meta, arrays):
        buffer = pack(meta, arrays)
        self.round = meta.get("t", self.round)
        what = meta.get("kind", "message") + (f" {self.round}" if "t" in meta else "")
        self._does(0, f"publishing {what}")
        for rank in self.workers:
            self._does(rank, f"receiving {what}")
            self._send({"kind": "publish", "what": what, "bytes": len(buffer)}, rank)
        broadcast(self.comm, buffer, self.check)
        self.sent += len(buffer)
        return len(buffer)

    def total(self, count):
        """Ranks add to their node's leader, leaders to rank 0: a node's network carries one sum."""
        for rank in self.workers:
            self._send({"kind": "total", "count": count}, rank)
        total = np.zeros(count, np.int64)
        self._does(0, self._in_round("adding updates up"))
        self.received += sum(add_up(comm, total, self.check) for comm in self.nodes)
        return total

    def map(self, jobs, arrays=None):
        jobs = list(jobs)
        queue = list(enumerate(jobs))[::-1]
        held = {rank: [] for rank in self.workers}       # (index, job bytes) in the order that they were sent

        def feed(rank):
            while queue and len(held[rank]) < (AHEAD if len(queue) > len(self.workers) else 1):
                index, job = queue.pop()
                if not held[rank]:
                    self._does(rank, self._named(job))
                held[rank].append((index, self._post({"kind": "run", "job": job}, rank, arrays[index] if arrays else {})))

        assert not self.unanswered, "a map that was given up: its answers would be taken for those of this one"
        self._does(0, self._in_round("waiting for workers"))
        try:
            for rank in self.workers:
                feed(rank)
            while any(held.values()):
                wait(self._come, lambda: (self.check(), self._overdue(rank for rank in held if held[rank])))
                meta, answer, rank = self._receive()
                size = self.reply_bytes
                index, job_bytes = held[rank].pop(0)
                self._does(rank, self._named(jobs[held[rank][0][0]]) if held[rank] else "waiting")
                feed(rank)
                yield Reply(index, meta, answer, rank, job_bytes, size)
        finally:
            self.unanswered = any(held.values())

    def _named(self, job):
        return self._in_round(named(job))

    def _in_round(self, what):
        return f"{what} in round {self.round}" if self.round else what

    def _come(self):
        """Whether a message is there; raises Stopped where the round is to be given up."""
        self.asked()
        self.stop.check()
        self.posted = [each for each in self.posted if not MPI.Request.Testall(each[1])]
        return self.comm.Iprobe()

    def asked(self):
        """The name of the signal that asked the run to stop, here or on a worker, who passes it on; else ""."""
        status = MPI.Status()
        while MPI.COMM_WORLD.Iprobe(status=status):
            MPI.COMM_WORLD.Recv([bytearray(0), MPI.BYTE], status.source, status.tag)
            self.stop.ask(status.tag)
        return self.stop.asked

    def probe(self):
        """What the transport does beside what the MPI alone does, as JSON takes it: ``waiting`` (share of a core, by
        rank), ``pairs`` (of rank 0 and a worker: see ``_pair``) and ``broadcast`` (seconds, to all)."""
        for rank in self.workers:
            self._send({"kind": "probe"}, rank)
        comm = self.comm.Dup()                           # what else goes on does not get in between
        waiting = _ask_all(comm, self.workers, {"what": "wait"}, lambda: time.sleep(0.5))
        buffer = np.zeros(4 << 20, np.uint8)
        seconds = {bare: min(_timed(lambda bare=bare: _ask_all(comm, self.workers, {
            "what": "broadcast", "bytes": len(buffer), "bare": bare}, lambda bare=bare: _broadcast(comm, buffer, bare)))
            for _ in range(3)) for bare in (False, True)}
        pairs, far = {}, set()                           # one worker a node is also asked for long messages
        for rank in self.workers[:: -(-len(self.workers) // PROBED)]:
            node = self.places[rank].get("node")
            pairs[rank] = _pair(comm, rank, node not in far and len(far) < 4)
            far.add(node)
        for rank in self.workers:
            send(comm, pack({"what": "end"}, {}), rank)
        comm.Free()
        return {"waiting": waiting, "pairs": pairs, "broadcast": {
            "bytes": len(buffer), "seconds": seconds[False], "bare_seconds": seconds[True]}}

    def close(self, code=0):
        """End every worker's ``serve`` with ``code`` after the job it is at; jobs that wait are dropped, and answers. At a
        good end an error that nobody has read yet is raised."""
        self._does(0, "ending the run")
        requests = [nudge(rank) for rank in self.workers]
        for rank in self.workers:
            self._send({"kind": "stop", "code": code}, rank)
        leaving = set(self.workers)
        while leaving:
            try:
                meta, _, rank = self._receive()
            except WorkerError:
                if code == 0:
                    raise
            else:
                leaving -= {rank} if meta.get("kind") == "bye" else set()
        self.heart.end(self.check)
        MPI.Request.Waitall(requests)
        self.asked()                                     # what workers passed on before they left


def abort(code):
    """End the whole job at once: after a failure, when other ranks may be in the middle of their work."""
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(0.3)                   # mpirun drops what it has not yet read from our pipes when a job aborts
    MPI.COMM_WORLD.Abort(code)
    os._exit(code)                    # it may come back before the launcher has killed us


def serve(version, make_worker, silence_s=SILENCE_S, see=lambda local: {}):
    """A worker's whole life: answer rank 0 until it says stop; returns the exit code. ``see(number among the node's
    workers)`` is what rank 0 is told of the rank's place."""
    nudges, start = [], time.monotonic()
    stopping.pass_on(lambda number: nudges.append(nudge(0, number)))
    work, worker = {"at": "starting", "goes_on": "", "host": "its host"}, None

    def lost(rank, seconds):
        _last_words(f"error: rank {MPI.COMM_WORLD.rank} on {socket.gethostname()} ({work['at']}) has not heard rank 0 on "
                    f"{work['host']} for {seconds:.0f} s and ends the job" + (work["goes_on"] and f"; {work['goes_on']}"))

    def patient():
        if time.monotonic() - start > 1.5 * _later(START * silence_s) > 0:    # rank 0 knows better, if it lives
            lost(0, time.monotonic() - start)

    try:
        worker = make_worker()
        ready = pack({"kind": "hello", "host": socket.gethostname(), "version": version}, {"pid": np.array([os.getpid()])})
    except Exception as error:
        ready = _failure(error)
    nudges.append(MPI.COMM_WORLD.Isend([ready, MPI.BYTE], 0, READY))
    comm = duplicate(MPI.COMM_WORLD, patient)            # rank 0 comes when it has read its data
    heart = Heart(duplicate(MPI.COMM_WORLD, patient), [0], _later(silence_s), lost)
    shared = nodes(comm)
    first, local = among(shared[0], comm)
    try:
        send(comm, pack({"kind": "place", "place": see(local) | {"node": first}}, {}), 0)
    except Exception as error:
        send(comm, _failure(error), 0)
    return _answer_all(comm, worker, work, shared, heart, nudges)


def _later(silence_s):
    """Rank 1 speaks for all workers; the others only if it does not."""
    return silence_s * (1 if MPI.COMM_WORLD.rank == 1 else 1.25)


def _answer_all(comm, worker, work, shared, heart, nudges):
    """Answer one message after the other; ``work`` says at what this rank is."""
    while True:
        work["at"] = "waiting"
        with _or_abort():
            meta, arrays = _opened(receive(comm, 0)[0], "a job or a call from rank 0 is")
        if meta["kind"] == "stop":
            stopping.ignore()
            MPI.COMM_WORLD.Recv([bytearray(0), MPI.BYTE], 0)
            send(comm, pack({"kind": "bye"}, {}), 0)
            heart.end()
            MPI.Request.Waitall(nudges)
            return meta["code"]
        work["at"] = named(meta["job"]) if "job" in meta else meta.get("what", meta["kind"])
        if meta["kind"] == "share":
            work |= {"host": meta["host"], "goes_on": meta["meta"].get("goes_on", "")}
        try:
            _answer(comm, worker, meta, arrays, shared)
        except Exception as error:
            send(comm, _failure(error), 0)


def _answer(comm, worker, meta, given, shared):
    """Do what a message asks; ``shared`` are the communicators of ``nodes``."""
    if meta["kind"] == "publish":
        with _or_abort():
            buffer = np.empty(meta["bytes"], np.uint8)
            broadcast(comm, buffer)
        worker.receive(*_opened(buffer, f"the message {meta['what']} from rank 0 is"))
    elif meta["kind"] == "share":
        with _or_abort():
            arrays = _share(shared, meta["table"])
        worker.receive(meta["meta"] | {"local_rank": among(shared[0], comm)[1]}, arrays)
    elif meta["kind"] == "probe":
        _be_probed(comm.Dup())
    elif meta["kind"] == "total":
        with _or_abort():
            total = worker.total(meta["count"]).copy()
            add_up(shared[0], total)
            if shared[0].rank == 0:
                add_up(shared[1], total)
    elif meta["kind"] == "run" and not MPI.COMM_WORLD.Iprobe(0):
        send(comm, pack(*worker.run(meta["job"], given)), 0)


def _opened(buffer, what):
    """``unpack``, whose WireError says ``what`` was damaged."""
    try:
        return unpack(buffer)
    except WireError as error:
        raise WireError(f"{what} {error}") from error


@contextlib.contextmanager
def _or_abort():
    """What fails in here fails while the other ranks wait in the same exchange, where no message reaches them."""
    try:
        yield
    except FedError as error:
        _last_words(f"error on rank {MPI.COMM_WORLD.rank} on {socket.gethostname()}: {error}")
    except Exception:
        traceback.print_exc()
        abort(1)


def _last_words(line):
    """One line, from whatever thread, and the end of the job."""
    os.write(2, f"{line}\n".encode())
    abort(1)


def _failure(error):
    """The message that tells rank 0 of an exception."""
    own = isinstance(error, (UserError, WireError))
    trace = str(error) if own else "".join(traceback.format_exception(error))
    return pack({"kind": "error", "trace": trace, "user": isinstance(error, UserError)}, {})


def nodes(comm):
    """``(the ranks of this node, one leader a node)``, communicators; the second is of use on leaders only."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
    return node, comm.Split(0 if node.rank == 0 else MPI.UNDEFINED, comm.rank)


def _sum(array):
    return checksum(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def among(node, comm):
    """``(first rank of this node, number of this rank among the node's workers)``; rank 0 is none and not counted."""
    first = MPI.Group.Translate_ranks(node.group, [0], comm.group)[0]
    return first, node.rank - (first == 0)


def _share(nodes, table, arrays=None, check=lambda: None):
    """The arrays of ``table``: one file a node, mapped by its ranks and already unlinked, so nothing is left behind
    however the job ends. Rank 0 brings them; one leader a node receives them, the last rank checks the sums."""
    node, leaders = nodes
    sizes = [max(1, int(np.prod(shape, dtype=np.int64))) * np.dtype(dtype).itemsize for _, dtype, shape, _ in table]
    starts = np.concatenate([[0], np.cumsum([-(-size // 4096) * 4096 for size in sizes])]).astype(int)
    path = np.zeros(4096, np.uint8)
    if node.rank == 0:
        handle, name = tempfile.mkstemp(prefix="fedmpi-")
        path[: len(name.encode())] = np.frombuffer(name.encode(), np.uint8)
        try:
            os.posix_fallocate(handle, 0, int(starts[-1]))
        except OSError as error:
            os.unlink(name)
            raise DiskError(f"no room for {starts[-1]:,} bytes of data, shared by the ranks of {socket.gethostname()}, in "
                            f"{tempfile.gettempdir()} ({error.strerror}): set TMPDIR to another folder") from error
        os.close(handle)
        data = np.memmap(name, np.uint8, "r+")
        for start, size, (key, *_) in zip(starts, sizes, table):
            if arrays is not None and arrays[key].size:
                data[start: start + size] = np.ascontiguousarray(arrays[key]).reshape(-1).view(np.uint8)
        broadcast(leaders, data, check)
    broadcast(node, path, check)
    name = path.tobytes().rstrip(b"\0").decode()
    data = np.memmap(name, np.uint8, "c")
    barrier(node, check)
    if node.rank == 0:
        os.unlink(name)
    found = {key: np.asarray(data[start: start + size]).view(dtype).reshape(shape) if np.prod(shape) else
             np.empty(shape, dtype) for start, size, (key, dtype, shape, _) in zip(starts, sizes, table)}
    if node.rank == node.size - 1 and arrays is None:
        for key, _, _, expected in table:
            if (got := _sum(found[key])) != expected:
                raise WireError(f"the data {key} from rank 0 are damaged: checksum {got:016x}, sent with {expected:016x}")
    return found


def library():
    """What MPI is loaded, as JSON takes it."""
    name = MPI.Get_library_version().partition("\n")[0].strip("\0 ")
    return {"library": " ".join(name.split()), "mpi4py": mpi4py.__version__,
            "standard": ".".join(map(str, MPI.Get_version())), "binary": os.path.basename(MPI.__file__),
            "threads": {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled", MPI.THREAD_SERIALIZED: "serialized",
                        MPI.THREAD_MULTIPLE: "multiple"}[MPI.Query_thread()], "cuda_aware": cuda_aware()}


def cuda_aware():
    """Whether this MPI says that it takes pointers to GPU memory; None where it has no word for it. Open MPI and MPICH
    offer the same function, which is in no standard and not in mpi4py. This transport makes no use of it, see staging."""
    found = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return None if found is None else bool(found())


def _timed(do):
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def _ask_all(comm, workers, meta, meanwhile):
    """``{rank: number}`` that each worker answers to ``meta``; in between this rank does ``meanwhile()``."""
    for rank in workers:
        send(comm, pack(meta, {}), rank)
    meanwhile()
    for rank in workers:
        send(comm, pack({}, {}), rank)
    return {rank: unpack(receive(comm, rank)[0])[0]["number"] for rank in workers}


def _pair(comm, rank, long):
    """Of this rank and another: ``round_trip_s`` of 8 bytes, ``clock_s`` (how much later it is there) and the error of
    that, ``rates`` in bytes a second one way, by bytes sent; and the same of MPI alone, as ``bare_...``."""
    found = {"rates": {}, "bare_rates": {}}
    for bare, name in ((False, ""), (True, "bare_")):
        trips = _trips(comm, rank, 8, 20, bare)
        found[name + "round_trip_s"] = float(np.median([seconds for seconds, _ in trips]))
        if not bare:
            seconds, found["clock_s"] = min(trips)
            found["clock_error_s"] = seconds / 2
    for num_bytes in [4 << 20] + [64 << 20] * long:
        for bare, name in ((False, ""), (True, "bare_")):
            trips = _trips(comm, rank, num_bytes, 4, bare)
            found[name + "rates"][num_bytes] = 2 * num_bytes / min(seconds for seconds, _ in trips)
    return found


def _trips(comm, rank, num_bytes, times, bare):
    """``[(seconds, how much later it is there)]`` of each message to ``rank`` and back; the first warms up."""
    send(comm, pack({"what": "echo", "bytes": num_bytes, "times": times, "bare": bare}, {}), rank)
    buffer, found = np.zeros(num_bytes, np.uint8), []
    for _ in range(times):
        start, now = time.perf_counter(), time.time()
        if bare:
            comm.Send([buffer, MPI.BYTE], rank, LAST)
            comm.Recv([buffer, MPI.BYTE], rank, LAST)
        else:
            send(comm, buffer, rank)
            buffer = receive(comm, rank)[0]
        seconds = time.perf_counter() - start
        found.append((seconds, float(buffer[-8:].view(np.float64)[0]) - now - seconds / 2))
    return found[1:]


def _broadcast(comm, buffer, bare):
    if bare:
        comm.Bcast([buffer, MPI.BYTE])
    else:
        broadcast(comm, buffer)
    barrier(comm)


def _be_probed(comm):
    """A worker's side of ``Mpi.probe``."""
    while (meta := unpack(receive(comm, 0)[0])[0])["what"] != "end":
        if meta["what"] == "echo":
            _echo(comm, meta["bytes"], meta["times"], meta["bare"])
            continue
        start, used = time.perf_counter(), time.process_time()
        if meta["what"] == "broadcast":
            _broadcast(comm, np.empty(meta["bytes"], np.uint8), meta["bare"])
        receive(comm, 0)
        share = (time.process_time() - used) / (time.perf_counter() - start)
        send(comm, pack({"number": share}, {}), 0)
    comm.Free()


def _echo(comm, num_bytes, times, bare):
    """Send back what comes, with the time of this rank in its last 8 bytes."""
    buffer = np.empty(num_bytes, np.uint8)
    for _ in range(times):
        if bare:
            comm.Recv([buffer, MPI.BYTE], 0, LAST)
        else:
            buffer = receive(comm, 0)[0]
        buffer[-8:].view(np.float64)[0] = time.time()
        if bare:
            comm.Send([buffer, MPI.BYTE], 0, LAST)
        else:
            send(comm, buffer, 0)
