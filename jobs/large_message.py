"""Messages of more than 4 GiB, to a worker and back: ``mpirun -n 2 python jobs/large_message.py``.

It needs 10 GiB of memory, and prints seconds by direction. The suite sends messages of as many
chunks, with chunks of 1000 bytes.
"""

import resource
import sys
import time

import numpy as np
from mpi4py import MPI

from fedmpi.transport.mpi import Mpi
from fedmpi.transport.serve import serve

NUM_BYTES = (4 << 30) + (200 << 20)
# Marks at both ends, and on both sides of 2^32.
PLACES = [0, (1 << 32) - 1, 1 << 32, NUM_BYTES - 1]


def marked():
    # Zeros that nobody has written to take no memory.
    content = np.zeros(NUM_BYTES, np.uint8)
    content[PLACES] = [1, 2, 3, 4]
    return content


def check(content):
    assert len(content) == NUM_BYTES
    assert content[PLACES].tolist() == [1, 2, 3, 4]


class Echo:
    """A worker that takes a large message, or answers with one."""

    def run(self, job, arrays):
        if arrays:
            check(arrays["content"])
            return {}, {}
        return {}, {"content": marked()}


def play(transport):
    begin = time.perf_counter()
    list(transport.map([{"kind": "down"}], [{"content": marked()}]))
    down_s = time.perf_counter() - begin
    for reply in transport.map([{"kind": "up"}]):
        check(reply.arrays["content"])
    up_s = time.perf_counter() - begin - down_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(f"{NUM_BYTES:,} bytes down in {down_s:.1f} s, up in {up_s:.1f} s; rank 0 took {peak:.1f} GiB")


if __name__ == "__main__":
    if MPI.COMM_WORLD.rank:
        sys.exit(serve("large", Echo))
    transport = Mpi("large")
    play(transport)
    transport.close()
