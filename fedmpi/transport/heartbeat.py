"""Heartbeats between rank 0 and each worker: the signs of life by which they notice a lost rank."""

import threading
import time

from mpi4py import MPI

from fedmpi.transport import messages
from fedmpi.transport.watch import Watch

# Tags of beats: one of many, and the last.
BEAT, LEAVE = 1, 2


class Heartbeat:
    """Beats to and from every peer, in a communicator and a thread of their own.

    Several fit into the time of silence. A rank beats on while its main thread works for minutes. A
    dead, stopped or unreachable rank does not.
    """

    def __init__(self, comm, peers, silence_s, lost):
        """``lost(peer, seconds)`` is called in the thread, again and again, while ``peer`` is silent for too long."""
        self.comm = comm
        self.peers = list(peers)
        self.lost = lost
        # {peer: request of its last beat}
        self.sent = {}
        self.lock = threading.Lock()
        self.watch = Watch(peers, silence_s, time.monotonic())
        self.leaving = False
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
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
            peer = status.source
            tag = status.tag
            self.comm.Recv([bytearray(0), MPI.BYTE], peer, tag)
            self.watch.hear(peer, time.monotonic())
            if tag == LEAVE:
                self.watch.leave(peer)

    def _send(self):
        """Send a beat to every listening peer."""
        if self.leaving:
            return
        for peer in self.peers:
            # A peer with an untaken beat does not listen; it gets no more.
            if peer not in self.sent or self.sent[peer].Test():
                self.sent[peer] = self._post(peer, BEAT)

    def _post(self, peer, tag):
        """The request of an empty message."""
        return self.comm.Isend([bytearray(0), MPI.BYTE], peer, tag)

    def _all_left(self):
        with self.lock:
            self._hear()
            return not self.watch.heard

    def end(self, check=lambda: None):
        """Say goodbye, and wait for every peer's goodbye: then all beats have arrived."""
        with self.lock:
            goodbyes = [self._post(peer, LEAVE) for peer in self.peers]
            self.leaving = True
        messages.wait(self._all_left, check)
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join()
        MPI.Request.Waitall([*goodbyes, *self.sent.values()])
