"""The transport over MPI, rank 0's side: rank 0 serves, every other rank works.

A worker's exception travels to rank 0 as a message; an exception on rank 0 aborts the job. COMM_WORLD itself carries a
worker's first message and, out of order, empty messages: a worker's signal to rank 0, and rank 0's word that waiting
jobs are dropped. Heartbeats have a communicator of their own, see ``heartbeat``.
"""

import math
import os
import socket
import time

import mpi4py
import numpy as np
from mpi4py import MPI

from fedmpi.core import stop as stopping
from fedmpi.core.errors import LostRank, UserError, WorkerError
from fedmpi.transport import groups, messages
from fedmpi.transport.active_ranks import active_ranks
from fedmpi.transport.base import Reply, named, pieces, whole
from fedmpi.transport.heartbeat import Heartbeat
from fedmpi.transport.messages import LONGEST_S, READY, RUNG_S
from fedmpi.transport.probe import probe
from fedmpi.transport.sharing import published, share, sum_of
from fedmpi.transport.watch import START, Limits
from fedmpi.transport.wakeup import dozing, wake
from fedmpi.wire.frame import pack, size

# Jobs held by a worker while others wait in the queue.
AHEAD = 2
# The most ranks named in one line.
NAMED = 10


class Mpi:
    """Rank 0's side."""

    def __init__(self, version, arrived=lambda missing, size: None, stop=None, limits=Limits(),
                 note=lambda rank, text: None, tell=lambda line: None):
        """Waits until every rank is ready. ``arrived(missing, size)`` hears time and again of the missing ranks.
        ``note(rank, text)`` hears of each rank's work from now on; ``tell(line)`` of the last words before the job is
        aborted."""
        self.size = MPI.COMM_WORLD.size
        self.stop = stop or stopping.Stop()
        self.note, self.tell = note, tell
        self.silence_s, self.task_s = limits
        library = MPI.Get_library_version().partition("\n")[0]
        self.versions = {"mpi4py": mpi4py.__version__, "mpi": library.strip("\0 ")}
        self.workers = range(1, self.size)
        self.sent = self.received = 0
        self.waited_s = self.meanwhile_s = 0.0
        # The current round, for texts, and the line about a lost rank.
        self.nodes = self.round = self.gone = None
        # Whether a map was abandoned before all answers came.
        self.unanswered = False
        # [(buffers, requests)] of jobs that may still be on their way.
        self.posted = []
        self.places = {}
        self.hosts = [socket.gethostname()] * self.size
        self.pids = [os.getpid()] * self.size
        # {rank: (its work, since when)}
        self.work = {rank: ("getting ready", time.monotonic()) for rank in range(self.size)}
        self._recruit(version, arrived)

    def _recruit(self, version, arrived):
        """Wait until every rank is ready, and for the communicators."""
        start = time.monotonic()
        missing = set(self.workers)

        def patient():
            arrived(missing, self.size)
            if time.monotonic() - start > START * self.silence_s > 0:
                raise LostRank(self._missing_line(missing))

        while missing:
            message = messages.receive(MPI.COMM_WORLD, check=patient, tag=READY)
            missing.discard(self._welcome(message, version))
        welcome = messages.answer(self.workers, messages.COME)
        messages.wait(lambda: MPI.Request.Testall(welcome.requests), patient)
        self.comm = messages.duplicate(MPI.COMM_WORLD, patient)
        beats = messages.duplicate(MPI.COMM_WORLD, patient)
        self.heartbeat = Heartbeat(beats, self.workers, self.silence_s, self._lost)
        self.nodes = messages.nodes(self.comm)
        # Collective calls: only the workers need the answers.
        messages.crowding(self.nodes[0])
        messages.server_process(self.comm)
        messages.mates(self.nodes[0], self.comm)
        for _ in self.workers:
            meta, _, rank = self._receive()
            self.places[rank] = meta["place"]
        self.active_ranks = active_ranks(self.places)
        # {rank that takes jobs: others that follow it}, see ``divide``.
        self.followers = {}
        self.nap = self._own_nap()

    def _missing_line(self, missing):
        first = sorted(missing)[:NAMED]
        ranks = ", ".join(map(str, first)) or "unknown"
        num_missing = len(missing)
        if num_missing > NAMED:
            ranks += ", ..."
        num_ready = self.size - num_missing
        limit_s = START * self.silence_s
        limit = f"{limit_s:.0f} s ({START} times --silence)"
        return f"{num_ready} of {self.size} ranks are ready after {limit}, not: rank {ranks}"

    def _welcome(self, message, version):
        """The rank of a first message. UserError if it runs another version."""
        meta, arrays, rank = self._opened(*message)
        host = meta["host"]
        own_version = meta["version"]
        self.hosts[rank] = host
        # In an array: its size does not depend on the number.
        self.pids[rank] = int(arrays["pid"][0])
        if own_version != version:
            raise UserError(f"rank {rank} on {host} runs fedmpi {own_version}, rank 0 {version}")
        self._does(rank, "waiting")
        return rank

    def _own_nap(self):
        """Rank 0's way to wait: if all ranks are on its machine, they wake it."""
        all_near = all(host == self.hosts[0] for host in self.hosts)
        if all_near:
            return dozing(RUNG_S, True)
        return dozing(LONGEST_S, False)

    def _does(self, rank, text):
        self.work[rank] = text, time.monotonic()
        self.note(rank, text)

    def _lost(self, rank, seconds):
        """Called in the heartbeat's thread.

        The main thread raises at its next ``check``; if it is blocked itself, this thread aborts
        the job.
        """
        now = time.monotonic()
        if self.gone is None:
            text, since = self.work[rank]
            work = f"{text} ({now - since:.0f} s ago)"
            self.answered = False
            self.by = now + self.silence_s
            # Set last: the main thread may read it at once.
            self.gone = (f"rank {rank} on {self.hosts[rank]} has been silent for {seconds:.0f} s, "
                         f"last known work: {work}")
        elif not self.answered and now > self.by:
            own_work, _ = self.work[0]
            self.tell(f"error: {self.gone}; rank 0 is blocked at {own_work}")
            messages.abort(1)

    def check(self):
        """Raises LostRank if another rank is lost."""
        if self.gone is not None:
            self.answered = True
            raise LostRank(self.gone)

    def _check_overdue(self, ranks):
        """Raises LostRank if one of ``ranks`` has been at its job for too long.

        It may be alive and yet never end.
        """
        if not self.task_s:
            return
        for rank in ranks:
            text, since = self.work[rank]
            at_it_s = time.monotonic() - since
            if at_it_s > self.task_s:
                raise LostRank(f"rank {rank} on {self.hosts[rank]} has been at {text} for "
                               f"{at_it_s:.3g} s, longer than --task-limit {self.task_s:g}")

    def _send(self, meta, rank, arrays=None):
        buffer = pack(meta, arrays or {})
        num_bytes = len(buffer)
        self.sent += num_bytes
        pid = self._near(rank)
        messages.send(self.comm, buffer, rank, self.check, pid)
        return num_bytes

    def _near(self, rank):
        """The process of a rank of this machine, else None."""
        if self.hosts[rank] == self.hosts[0]:
            return self.pids[rank]
        return None

    def _post(self, meta, rank, arrays):
        """As ``_send``, without waiting: the worker may be sending, too, and wait for us."""
        parts = messages.in_pieces(meta, arrays)
        num_bytes = sum(map(len, parts))
        self.sent += num_bytes
        requests = messages.post_pieces(self.comm, parts, rank)
        self.posted.append((parts, requests))
        wake(self._near(rank))
        return num_bytes

    def _receive(self):
        buffer, rank = messages.receive(self.comm, check=self.check)
        return self._opened(buffer, rank)

    def _opened(self, buffer, rank):
        num_bytes = len(buffer)
        self.received += num_bytes
        text, _ = self.work[rank]
        host = self.hosts[rank]
        subject = f"a message from rank {rank} on {host}, at {text}, is"
        meta, arrays = messages.opened(buffer, subject)
        if meta.get("kind") == "error":
            raise WorkerError(rank, meta["trace"], meta["user"])
        self.reply_bytes = num_bytes
        return meta, arrays, rank

    def share(self, meta, arrays):
        """Give every rank of every node the same message, its arrays read-only and once a node.

        ``goes_on`` in ``meta`` says how an ended run goes on, for a worker's last words.
        """
        table = []
        for name, array in arrays.items():
            dtype = array.dtype.str
            shape = list(array.shape)
            row = [name, dtype, shape, sum_of(array)]
            table.append(row)
        announcement = {"kind": "share", "host": self.hosts[0], "table": table, "meta": meta}
        self._does(0, "sharing the data")
        for rank in self.workers:
            self._does(rank, "receiving the data")
            self._send(announcement, rank)
        self.sent += sum(array.nbytes for array in arrays.values())
        share(self.nodes, table, arrays, self.check)

    def divide(self, size, backend):
        """Have groups of ``size`` workers train one client each; their leaders take all jobs.

        ``backend`` of torch carries their tensors. Called before the first job. UserError if ranks
        of a group share a GPU.
        """
        ranks_of = groups.grouped(self.places, size)
        if backend == "nccl":
            groups.check(ranks_of, self.places)
        for ranks in ranks_of:
            for rank in ranks:
                self._does(rank, "joining its group")
                self._send({"kind": "group", "ranks": ranks, "backend": backend}, rank)
        for _ in self.workers:
            # An error of any of them is raised here.
            _, _, rank = self._receive()
            self._does(rank, "waiting")
        self.active_ranks = groups.leading(ranks_of, self.active_ranks, size)
        self.followers = {leader: others for leader, *others in ranks_of}

    def publish(self, meta, arrays):
        num_bytes = sum(array.nbytes for array in arrays.values())
        # A file a message would show beside small ones.
        if num_bytes >= messages.LARGE:
            return self._publish_once_a_node(meta, arrays)
        buffer = pack(meta, arrays)
        num_bytes = len(buffer)
        self._announce(meta, {"bytes": num_bytes})
        messages.broadcast(self.comm, buffer, self.check)
        self.sent += num_bytes
        return num_bytes

    def _publish_once_a_node(self, meta, arrays):
        """``publish`` of a large message: a node's ranks share one copy of it."""
        num_bytes = size(meta, arrays)
        self._announce(meta, {"bytes": num_bytes, "shared": True})

        def write(content):
            pack(meta, arrays, content)

        published(self.nodes, num_bytes, write, self.check)
        self.sent += num_bytes
        return num_bytes

    def _announce(self, meta, announcement):
        """Tell every worker that a message comes, and what it is."""
        what = meta.get("kind", "message")
        if "t" in meta:
            self.round = meta["t"]
            what += f" {self.round}"
        self._does(0, f"publishing {what}")
        for rank in self.workers:
            self._does(rank, f"receiving {what}")
            self._send({"kind": "publish", "what": what} | announcement, rank)

    def total_pieces(self, count, take):
        """Ranks add to their node's leader, leaders to rank 0: a node's network carries one sum."""
        for rank in self.workers:
            self._send({"kind": "total", "count": count}, rank)
        self._does(0, self._in_round("adding updates up"))
        adding = [messages.Adding(comm) for comm in self.nodes]
        for start, stop in pieces(count):
            total = None
            for level in adding:
                total, received = level.up(total, stop - start, self.check)
                self.received += received
            if total is None:
                total = np.zeros(stop - start, np.int64)
            take(start, total)

    def total(self, count):
        return whole(self.total_pieces, count)

    def map(self, jobs, arrays=None, meanwhile=()):
        jobs = list(jobs)
        meanwhile = iter(meanwhile)
        # Backwards: jobs are taken from its end.
        queue = list(enumerate(jobs))[::-1]
        # {rank: [(index, job bytes)]} in the order of sending, which is the order of answers.
        held = {rank: [] for rank in self.active_ranks}

        def feed(rank):
            while queue and len(held[rank]) < self._most_held(queue):
                index, job = queue.pop()
                # Else it is still at an earlier job.
                if not held[rank]:
                    self._does(rank, self._named(job))
                job_arrays = {}
                if arrays:
                    job_arrays = arrays[index]
                meta = {"kind": "run", "job": job}
                num_bytes = self._post(meta, rank, job_arrays)
                held[rank].append((index, num_bytes))
                self._have_followed(rank, job)

        def check():
            self.check()
            self._check_overdue(rank for rank in held if held[rank])

        assert not self.unanswered, "a map that was given up: its answers would be taken for those of this one"
        self._does(0, self._in_round("waiting for workers"))
        try:
            for rank in self.active_ranks:
                feed(rank)
            while any(held.values()):
                self._await(check, meanwhile)
                meta, answer, rank = self._receive()
                reply_bytes = self.reply_bytes
                index, job_bytes = held[rank].pop(0)
                if held[rank]:
                    next_index, _ = held[rank][0]
                    self._does(rank, self._named(jobs[next_index]))
                else:
                    self._does(rank, "waiting")
                feed(rank)
                yield Reply(index, meta, answer, rank, job_bytes, reply_bytes)
            self._spend(meanwhile, lambda: False, self.check)
        finally:
            self.unanswered = any(held.values())

    def _have_followed(self, rank, job):
        """Tell the other ranks of a group to follow its leader ``rank``, who has this job."""
        for follower in self.followers.get(rank, ()):
            self._does(follower, self._named(job))
            self._post({"kind": "follow"}, follower, {})

    def _most_held(self, queue):
        """The jobs a worker may hold. At the end of the queue one each, so that all end at the same time."""
        if len(queue) > len(self.active_ranks):
            return AHEAD
        return 1

    def _await(self, check, meanwhile):
        """Wait for the next message, and use the time for the work ``meanwhile``."""
        if not self._spend(meanwhile, self._come, check):
            begin = time.perf_counter()
            messages.wait(self._come, check, self.nap)
            self.waited_s += time.perf_counter() - begin

    def _spend(self, meanwhile, done, check):
        """Work until ``done()`` is true: True; False if the work ended before."""
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

    def _in_round(self, text):
        if not self.round:
            return text
        return f"{text} in round {self.round}"

    def _come(self):
        """Whether a message has come. Raises Stopped if the round is to be abandoned."""
        self.stop_signal()
        self.stop.check()
        self.posted = [pair for pair in self.posted if not MPI.Request.Testall(pair[1])]
        return self.comm.Iprobe()

    def stop_signal(self):
        """The name of the signal asking the run to stop, sent to this rank or passed on by a worker; "" without one."""
        status = MPI.Status()
        while MPI.COMM_WORLD.Iprobe(status=status):
            MPI.COMM_WORLD.Recv([bytearray(0), MPI.BYTE], status.source, status.tag)
            self.stop.ask(status.tag)
        return self.stop.asked

    def probe(self):
        """Measurements of the transport beside MPI alone, see ``fedmpi.transport.probe``."""
        for rank in self.workers:
            self._send({"kind": "probe"}, rank)
        return probe(self.comm.Dup(), self.places)

    def close(self, code=0, patience_s=math.inf):
        """End every worker's ``serve`` with ``code`` after its present job; waiting jobs and all answers are dropped.

        With code 0, a worker's unread error is raised. LostRank if a worker stays at its job for more than
        ``patience_s``."""
        give_up = time.monotonic() + patience_s

        def patient():
            self.check()
            if time.monotonic() > give_up:
                raise LostRank(f"not every rank has left after {patience_s:g} s")

        self._does(0, "ending the run")
        # Out of order: waiting jobs are dropped.
        requests = [messages.nudge(rank) for rank in self.workers]
        for rank in self.workers:
            self._send({"kind": "stop", "code": code}, rank)
        self._see_off(code, patient)
        self.heartbeat.end(self.check)
        MPI.Request.Waitall(requests)
        # The workers may have passed on a signal before they left.
        self.stop_signal()

    def _see_off(self, code, check):
        """Wait for every worker's goodbye."""
        leaving = set(self.workers)
        while leaving:
            try:
                buffer, source = messages.receive(self.comm, check=check)
                meta, _, rank = self._opened(buffer, source)
            except WorkerError:
                if code == 0:
                    raise
                continue
            if meta.get("kind") == "bye":
                leaving.discard(rank)
