"""The transport over MPI, rank 0's side: rank 0 serves, every other rank works.

A worker's exception travels to rank 0 as a message; an exception on rank 0 aborts the job. Beside all that, in
COMM_WORLD itself, go a worker's first message and, out of order, empty ones: its signal to rank 0, and rank 0's word
that jobs that still wait are dropped. And in a communicator of their own go the beats, see ``heart``.
"""

import math
import os
import socket
import time

import mpi4py
from mpi4py import MPI

from fedmpi.core import stop as stopping
from fedmpi.core.errors import LostRank, UserError, WorkerError
from fedmpi.transport import messages
from fedmpi.transport.base import Reply, named
from fedmpi.transport.bell import dozing, ring
from fedmpi.transport.crowd import at_work
from fedmpi.transport.heart import Heart
from fedmpi.transport.messages import LONGEST_S, READY, RUNG_S
from fedmpi.transport.probe import probe
from fedmpi.transport.sharing import share, sum_of
from fedmpi.transport.watch import START, Limits
from fedmpi.wire.frame import pack

AHEAD = 2                 # jobs a worker holds while others wait in the queue


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
        self.waited_s = self.meanwhile_s = 0.0
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
            meta, arrays, rank = self._opened(*messages.receive(MPI.COMM_WORLD, check=patient, tag=READY))
            self.hosts[rank], self.pids[rank] = meta["host"], int(arrays["pid"][0])
            if meta["version"] != version:
                raise UserError(f"rank {rank} on {meta['host']} runs fedmpi {meta['version']}, rank 0 {version}")
            self._does(rank, "waiting")
            missing -= {rank}
        welcome = messages.answer(self.workers, messages.COME)
        messages.wait(lambda: MPI.Request.Testall(welcome.requests), patient)
        self.comm = messages.duplicate(MPI.COMM_WORLD, patient)
        self.heart = Heart(messages.duplicate(MPI.COMM_WORLD, patient), self.workers, self.silence_s, self._lost)
        self.nodes = messages.nodes(self.comm)
        messages.crowding(self.nodes[0])                 # the workers ask
        messages.server_process(self.comm)
        for _ in self.workers:
            meta, _, rank = self._receive()
            self.places[rank] = meta["place"]
        self.at_work = at_work(self.places)
        near = all(host == self.hosts[0] for host in self.hosts)
        self.nap = dozing(RUNG_S if near else LONGEST_S, near)

    def _does(self, rank, text):
        self.work[rank] = text, time.monotonic()
        self.note(rank, text)

    def _lost(self, rank, seconds):
        """In the heart's thread. A main thread that does not answer, as it is blocked itself, is not waited for."""
        if self.gone is None:
            text, since = self.work[rank]
            self.gone = (f"rank {rank} on {self.hosts[rank]} has been silent for {seconds:.0f} s, last known work: "
                         f"{text} ({time.monotonic() - since:.0f} s ago)")
            self.answered, self.by = False, time.monotonic() + self.silence_s
        elif not self.answered and time.monotonic() > self.by:
            self.tell(f"error: {self.gone}; rank 0 is blocked at {self.work[0][0]}")
            messages.abort(1)

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
                raise LostRank(f"rank {rank} on {self.hosts[rank]} has been at {text} for "
                               f"{time.monotonic() - since:.3g} s, longer than --task-limit {self.task_s:g}")

    def _send(self, meta, rank, arrays={}):
        buffer = pack(meta, arrays)
        self.sent += len(buffer)
        messages.send(self.comm, buffer, rank, self.check, self._near(rank))
        return len(buffer)

    def _near(self, rank):
        """The process of a rank of this machine, else None."""
        return self.pids[rank] if self.hosts[rank] == self.hosts[0] else None

    def _post(self, meta, rank, arrays):
        """As ``_send``, without waiting: the worker may be sending, too, and wait for us."""
        buffer = pack(meta, arrays)
        self.sent += len(buffer)
        self.posted.append((buffer, messages.post(self.comm, buffer, rank)))
        ring(self._near(rank))
        return len(buffer)

    def _receive(self):
        return self._opened(*messages.receive(self.comm, check=self.check))

    def _opened(self, buffer, rank):
        self.received += len(buffer)
        whose = f"a message from rank {rank} on {self.hosts[rank]}, at {self.work[rank][0]}, is"
        meta, arrays = messages.opened(buffer, whose)
        if meta.get("kind") == "error":
            raise WorkerError(rank, meta["trace"], meta["user"])
        self.reply_bytes = len(buffer)
        return meta, arrays, rank

    def share(self, meta, arrays):
        """Give every rank of every node the same message, its arrays read-only and once a node. ``goes_on`` in ``meta``
        says how a run that was ended goes on, for a worker's last words."""
        table = [[name, array.dtype.str, list(array.shape), sum_of(array)] for name, array in arrays.items()]
        self._does(0, "sharing the data")
        for rank in self.workers:
            self._does(rank, "receiving the data")
            self._send({"kind": "share", "host": self.hosts[0], "table": table, "meta": meta}, rank)
        self.sent += sum(array.nbytes for array in arrays.values())
        share(self.nodes, table, arrays, self.check)

    def publish(self, meta, arrays):
        buffer = pack(meta, arrays)
        self.round = meta.get("t", self.round)
        what = meta.get("kind", "message") + (f" {self.round}" if "t" in meta else "")
        self._does(0, f"publishing {what}")
        for rank in self.workers:
            self._does(rank, f"receiving {what}")
            self._send({"kind": "publish", "what": what, "bytes": len(buffer)}, rank)
        messages.broadcast(self.comm, buffer, self.check)
        self.sent += len(buffer)
        return len(buffer)

    def total(self, count):
        """Ranks add to their node's leader, leaders to rank 0: a node's network carries one sum."""
        for rank in self.workers:
            self._send({"kind": "total", "count": count}, rank)
        self._does(0, self._in_round("adding updates up"))
        total = None
        for comm in self.nodes:
            total, received = messages.add_up(comm, total, self.check)
            self.received += received
        return total

    def map(self, jobs, arrays=None, meanwhile=()):
        jobs, meanwhile = list(jobs), iter(meanwhile)
        queue = list(enumerate(jobs))[::-1]
        held = {rank: [] for rank in self.at_work}       # (index, job bytes) in the order that they were sent

        def feed(rank):
            while queue and len(held[rank]) < (AHEAD if len(queue) > len(self.at_work) else 1):
                index, job = queue.pop()
                if not held[rank]:
                    self._does(rank, self._named(job))
                size = self._post({"kind": "run", "job": job}, rank, arrays[index] if arrays else {})
                held[rank].append((index, size))

        assert not self.unanswered, "a map that was given up: its answers would be taken for those of this one"
        self._does(0, self._in_round("waiting for workers"))
        try:
            for rank in self.at_work:
                feed(rank)
            while any(held.values()):
                self._await(lambda: (self.check(), self._overdue(rank for rank in held if held[rank])), meanwhile)
                meta, answer, rank = self._receive()
                size = self.reply_bytes
                index, job_bytes = held[rank].pop(0)
                self._does(rank, self._named(jobs[held[rank][0][0]]) if held[rank] else "waiting")
                feed(rank)
                yield Reply(index, meta, answer, rank, job_bytes, size)
            self._spend(meanwhile, lambda: False, self.check)
        finally:
            self.unanswered = any(held.values())

    def _await(self, check, meanwhile):
        """Wait for the next message, and use the time as long as there is something to do ``meanwhile``."""
        if not self._spend(meanwhile, self._come, check):
            begin = time.perf_counter()
            messages.wait(self._come, check, self.nap)
            self.waited_s += time.perf_counter() - begin

    def _spend(self, meanwhile, done, check):
        """Work until ``done()``, and whether it was; False where the work ended before."""
        begin = time.perf_counter()
        try:
            while not done():
                check()
                next(meanwhile)
            return True
        except StopIteration:
            return False
        finally:
            self.meanwhile_s += time.perf_counter() - begin

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
        """What the transport does beside what the MPI alone does, see ``fedmpi.transport.probe``."""
        for rank in self.workers:
            self._send({"kind": "probe"}, rank)
        return probe(self.comm.Dup(), self.places)

    def close(self, code=0, patience_s=math.inf):
        """End every worker's ``serve`` with ``code`` after the job it is at; jobs that wait are dropped, and answers.
        At a good end an error that nobody has read yet is raised. LostRank where a worker stays at its job for more
        than ``patience_s``."""
        give_up = time.monotonic() + patience_s

        def patient():
            self.check()
            if time.monotonic() > give_up:
                raise LostRank(f"not every rank has left after {patience_s:g} s")

        self._does(0, "ending the run")
        requests = [messages.nudge(rank) for rank in self.workers]
        for rank in self.workers:
            self._send({"kind": "stop", "code": code}, rank)
        leaving = set(self.workers)
        while leaving:
            try:
                meta, _, rank = self._opened(*messages.receive(self.comm, check=patient))
            except WorkerError:
                if code == 0:
                    raise
            else:
                leaving -= {rank} if meta.get("kind") == "bye" else set()
        self.heart.end(self.check)
        MPI.Request.Waitall(requests)
        self.asked()                                     # what workers passed on before they left
