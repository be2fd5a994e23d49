"""The transport of one process: the same messages, packed and unpacked, without MPI."""

import socket
import time

from fedmpi.core.stop import Stop
from fedmpi.transport.base import Reply, own_room, pieces, whole
from fedmpi.wire.frame import pack, unpack


class Local:
    """Server and one worker in one process; a breakpoint works anywhere."""

    size = 1
    versions = {}
    places = {}

    def __init__(self, worker, stop=None):
        self.worker = worker
        self.stop = stop or Stop()
        self.hosts = [socket.gethostname()]
        self.sent = self.received = 0
        self.waited_s = self.meanwhile_s = 0.0

    def share(self, meta, arrays):
        self.sent += sum(array.nbytes for array in arrays.values())
        self.worker.receive(meta | {"local_rank": 0, "memory": own_room}, arrays)

    def publish(self, meta, arrays):
        buffer = pack(meta, arrays)
        self.sent += len(buffer)
        self.worker.receive(*unpack(buffer))
        return len(buffer)

    def map(self, jobs, arrays=None, meanwhile=()):
        begin = time.perf_counter()
        # All of it at once: here no other rank works at the same time.
        for _ in meanwhile:
            pass
        self.meanwhile_s += time.perf_counter() - begin
        for index, job in enumerate(jobs):
            self.stop.check()
            job_arrays = {}
            if arrays:
                job_arrays = arrays[index]
            request = pack({"kind": "run", "job": job}, job_arrays)
            meta, received = unpack(request)
            begin = time.perf_counter()
            answer = self.worker.run(meta["job"], received)
            self.waited_s += time.perf_counter() - begin
            reply = pack(*answer)
            self.sent += len(request)
            self.received += len(reply)
            yield Reply(index, *unpack(reply), 0, len(request), len(reply))

    def total_pieces(self, count, take):
        for start, stop in pieces(count):
            take(start, self.worker.total(start, stop))

    def total(self, count):
        return whole(self.total_pieces, count)

    def stop_signal(self):
        return self.stop.asked

    def close(self, code=0):
        pass
