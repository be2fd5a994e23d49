"""Beats by which rank 0 and each worker know of each other that they live."""

import threading
import time

from mpi4py import MPI

from fedmpi.transport import messages
from fedmpi.transport.watch import Watch

BEAT, LEAVE = 1, 2        # tags of beats: one of many, the last


class Heart:
    """Beats to and from every peer, in a communicator and a thread of their own, a few in the time of silence. A rank
    whose main thread works for minutes beats on; one that is dead, stopped or out of reach does not."""

    def __init__(self, comm, peers, silence_s, lost):
        """``lost(peer, seconds)`` is called in the thread, again and again, while ``peer`` is silent for too long."""
        self.comm, self.peers, self.lost, self.sent, self.lock = comm, list(peers), lost, {}, threading.Lock()
        self.watch = Watch(peers, silence_s, time.monotonic())
        self.leaving, self.ended = False, threading.Event()
        self.thread = threading.Thread(target=self._beat, name="heart", daemon=True)
        if silence_s and messages.threads():
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
        messages.wait(self._left, check)
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join()
        MPI.Request.Waitall([*last, *self.sent.values()])
