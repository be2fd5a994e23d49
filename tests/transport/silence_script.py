"""What tests/transport/test_silence.py starts under mpirun: a run without torch in which a rank falls silent,
or a message is
damaged.

    silence_script.py CASE SECONDS
"""

import os
import signal
import sys
import time

import numpy as np
from mpi4py import MPI

from fedmpi.run import launch
from fedmpi.transport import messages, mpi
from fedmpi.transport.watch import Limits

CASE, SILENCE_S = sys.argv[1], float(sys.argv[2])
RANK = MPI.COMM_WORLD.rank


class Echo:
    """A worker whose rank 1 does what the case says."""

    def receive(self, meta, arrays):
        pass

    def run(self, job, arrays):
        if RANK == 1 and job["client"] == 1:
            if CASE == "busy":
                end = time.monotonic() + 3 * SILENCE_S
                while time.monotonic() < end:                # never lets go of the interpreter by itself
                    sum(range(1000))
            while CASE == "endless":
                time.sleep(0.1)
            if CASE in ("halted", "blocked"):
                os.kill(os.getpid(), signal.SIGSTOP)
        return {"client": job["client"]}, {"values": np.arange(1000.0)}


def make_worker():
    if CASE == "never ready" and RANK == 2:
        time.sleep(1000)
    return Echo()


def play(connect):
    transport = connect()
    transport.share({"kind": "data", "goes_on": "as before"}, {"data": np.arange(10_000.0)})
    end = time.monotonic() + (4 * SILENCE_S if CASE == "all halted" else 0)
    t = 1
    while t == 1 or time.monotonic() < end:
        transport.publish({"kind": "round", "t": t}, {"values": np.arange(100_000.0)})
        for _ in transport.map([{"client": n} for n in range(1, 7)]):
            if CASE == "blocked":
                MPI.COMM_WORLD.Recv([bytearray(1), MPI.BYTE], 2, 999)      # which never comes
        t += 1
        print(f"round {t - 1}", flush=True)
    burnt = time.process_time()
    if CASE == "idle":
        messages.wait(lambda start=time.monotonic(): time.monotonic() - start > 3, transport.check)
        print("burnt", time.process_time() - burnt)
    print("all went well", flush=True)


def damage(name, rank, position):
    """From now on what ``messages.NAME`` on that rank sends has one other bit, if it is long enough."""
    before = getattr(messages, name)

    def damaging(comm, message, *arguments, **named):
        # One buffer, or a message in pieces.
        buffer = message[0] if isinstance(message, list) else message
        if RANK == rank and len(buffer) > abs(position):
            buffer[position] ^= 4
        return before(comm, message, *arguments, **named)

    setattr(messages, name, damaging)


if CASE == "a job":
    damage("post_pieces", 0, 40)
elif CASE == "a reply":
    damage("send_pieces", 1, -4000)
elif CASE == "a model":
    damage("broadcast", 0, -700_000)
elif CASE == "the data":
    real = mpi.sum_of
    mpi.sum_of = lambda array: real(array) + (RANK == 0)
sys.exit(launch.on_ranks(play, make_worker, lambda line: RANK or print(line, flush=True),
                         Limits(SILENCE_S, 2.0 if CASE == "endless" else 0.0)))
