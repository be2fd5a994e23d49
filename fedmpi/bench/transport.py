"""The costs of the wire: a model to a worker, a message to all, replies a second, waiting ranks. ``mpirun -n 3 fedmpi
bench transport``, and ``-n 33``.

Every row stands beside MPI alone in the same processes, turn by turn. A time runs from the moment rank 0 has the vector
until the last receiver has it, by the clock shared by ranks of one machine.

A sparse model goes from a vector to a vector of all its weights, and at sparsity 0.9 four of five cache lines of both
hold a kept weight. The printed floor, reading the one and writing the other, takes longer than MPI's copy of all of it
between two processes. Sparsity pays off where bytes are dear.
"""

import itertools
import resource
import statistics
import time
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from fedmpi.client.worker import Worker, WorkerParts
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.methods.codecs import values
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.methods.tasks.classification import classification
from fedmpi.run import launch
from fedmpi.server.exchange import model_message
from fedmpi.wire import frame, positions

SPARSITY, WIDTH = 0.9, 4000
OPTIONS = {"device": "cpu", "precision": "float32"}
# Ranks wait for nothing for so long.
IDLE_S = 3.0


def measure(weights, replies, repeats, say):
    """Print the table; returns the exit code. ``weights`` is the model's number of them, ``replies`` the number of
    small jobs."""
    return launch.on_ranks(lambda connect: _play(connect(), weights, replies, repeats, say), Side, say)


def _play(transport, weights, replies, repeats, say):
    torch.set_num_threads(1)
    if transport.size < 2:
        raise UserError("needs ranks to send to: mpirun -n 3 fedmpi bench transport")
    if len(set(transport.hosts)) > 1:
        raise UserError("needs all ranks on one machine, whose clock they share; fedmpi doctor measures between "
                        "machines")
    side = Side()
    together(transport, {"do": "open"}, side)
    say(f"a model of {weights:,} weights at sparsity {SPARSITY} from rank 0 to a worker, {transport.size} ranks")
    message = _model(transport, side, weights, repeats, say)
    _broadcast(transport, side, message, repeats, say)
    _replies(transport, replies, repeats, say)
    _idle(transport, say)


def together(transport, job, side, workers=None):
    """``(own, others)``: the arrays of rank 0's part of a job, and of the first ``workers`` (None: all), done at the
    same time."""
    own = []

    def own_part():
        _, arrays = side.run(job, {})
        own.append(arrays)
        yield

    if workers is None:
        workers = transport.size - 1
    replies = transport.map([job] * workers, meanwhile=own_part())
    others = [reply.arrays for reply in replies]
    return own[0], others


class Side:
    """Rank 0's part of an exchange, and a worker's: the same job for both."""

    def receive(self, meta, arrays):
        pass

    def run(self, job, arrays):
        method = getattr(self, job["do"])
        answer = method(**job) or {}
        return {}, {name: np.asarray(array) for name, array in answer.items()}

    def open(self, do):
        from fedmpi.transport import messages
        self.messages = messages
        self.comm = messages.duplicate(messages.MPI.COMM_WORLD)

    def small(self, do):
        return {"values": np.zeros(64, np.float32)}

    def used(self, do):
        return {"used": _used(), "at": time.perf_counter()}

    def sleep(self, do, seconds):
        time.sleep(seconds)

    def model(self, do, weights, repeats):
        """``{way: [time]}``: when rank 0 began to send, or this worker had received. One model after the other, in
        every way, a warm-up before."""
        network = nn.Linear(WIDTH, -(-weights // WIDTH), bias=False)
        if self.comm.rank == 0:
            ways = sending(self, network)
        else:
            ways = receiving(self, network)
        times = {name: [] for name in ways}
        for _ in range(repeats + 1):
            for name, way in ways.items():
                times[name].append(way())
        return times

    def spread(self, do, num_bytes, repeats):
        """``{way: [(begin, end)]}``: when this rank began, and when it had the message; ours and MPI's broadcast."""
        buffer = np.zeros(num_bytes, np.uint8)
        ways = {"ours": lambda: self.messages.broadcast(self.comm, buffer),
                "bare": lambda: self.comm.Bcast(buffer)}
        times = {way: [] for way in ways}
        for _ in range(repeats + 1):
            for way, broadcast in ways.items():
                self.messages.barrier(self.comm)
                begin = time.perf_counter()
                broadcast()
                times[way].append((begin, time.perf_counter()))
        return times


def _used():
    """Processor seconds of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def sending(side, network):
    """``{way: function}`` of rank 0. Each function waits until the worker is ready, sends, and returns the time of its
    beginning."""
    from fedmpi.transport import messages
    comm = side.comm
    layout, x, _ = bind(network)
    gen = torch.Generator().manual_seed(0)
    codec = values.fitted(values.float32(), 0)
    fed = SimpleNamespace(layout=layout, codec=codec, strategy=fedavg(), seed=0)
    full = layout.full_mask()
    masks = []
    for _ in range(2):
        kept = torch.rand(layout.Q, generator=gen) >= SPARSITY
        masks.append(full & kept)
    side.message = {}
    t = itertools.count(1)

    def begin():
        messages.receive(comm, 1)
        return time.perf_counter()

    def model(name, mask, known):
        start = begin()
        header = {"kind": "round", "t": next(t), "layout": layout.digest}
        meta, arrays = model_message(fed, {"x": x}, 1, mask, known)
        side.message[name] = frame.pack(header | meta, arrays)
        messages.send(comm, side.message[name], 1)
        return start

    def unknown():
        # In turn: the worker does not hold this one.
        masks.reverse()
        return model("unknown", masks[0], None)

    def bare(buffer):
        start = begin()
        request = comm.Isend(buffer, 1)
        messages.wait(request.Test)
        return start

    return {"unknown": unknown, "known": lambda: model("known", masks[0], masks[0]),
            "turn": lambda: model("turn", full, None), "whole": lambda: model("whole", full, full),
            "dense": lambda: bare(x.numpy()), "raw unknown": lambda: bare(side.message["unknown"]),
            "raw known": lambda: bare(side.message["known"])}


def receiving(side, network):
    """``{way: function}`` of the worker. Each function returns the time at which the worker had it all."""
    from fedmpi.transport import messages
    comm = side.comm
    worker = _worker(network)
    buffer = np.zeros(network.weight.numel(), np.float32)

    def model():
        messages.send(comm, np.zeros(8, np.uint8), 0)
        message, _ = messages.receive(comm, 0)
        worker.receive(*messages.opened(message, "the model is"))
        return time.perf_counter()

    def bare():
        request = comm.Irecv(buffer, 0)
        messages.send(comm, np.zeros(8, np.uint8), 0)
        messages.wait(request.Test)
        return time.perf_counter()

    models = dict.fromkeys(("unknown", "known", "turn", "whole"), model)
    return models | dict.fromkeys(("dense", "raw unknown", "raw known"), bare)


def _worker(network):
    """A worker set up to receive models, without data."""
    parts = WorkerParts(network, fedavg(), None, values.float32(), {}, "", None, (), epochs=1, batch_size=1, lr=0.1,
                        seed=0, rounds=1, objective=classification(), optimiser=None, rates=None,
                        clip_norm=0.0, accumulate=1, steps=0,
                        augment=None)
    worker = Worker(lambda options, shape, outputs: parts, lambda name, local: torch.device(name))
    worker.receive({"kind": "data", "local_rank": 0}, {})
    known, array = positions.encode(np.zeros(network.weight.numel(), bool))
    worker.receive({"kind": "setup", "mean": 0.0, "std": 1.0, "options": OPTIONS, "shape": [],
                    "classes": 0, "outputs": 0,
                    "known": known, "sums": False, "values": True, "statistics": [], "constants": ""},
                   {"known": array, "frozen": np.zeros(0, np.uint8)})
    return worker


def milliseconds(begins, ends):
    """Median, least and largest, without the warm-up."""
    seconds = np.asarray(ends) - np.asarray(begins)
    taken_ms = 1e3 * seconds[1:]
    return float(np.median(taken_ms)), float(taken_ms.min()), float(taken_ms.max())


def _model(transport, side, weights, repeats, say):
    """Print the model's rows; returns the message with positions."""
    job = {"do": "model", "weights": weights, "repeats": repeats}
    began, (ended,) = together(transport, job, side, 1)
    taken_ms = {way: milliseconds(began[way], ended[way]) for way in began}
    floor = _floor(weights, repeats)
    dense, _, _ = taken_ms["dense"]
    whole, _, _ = taken_ms["whole"]
    for way, name in (("known", "positions known"), ("unknown", "positions sent along")):
        ours, least, most = taken_ms[way]
        raw, _, _ = taken_ms["raw " + way]
        say(f"  {name}: {ours:.2f} ms ({least:.2f} to {most:.2f}) for {len(side.message[way]):,} bytes; dense float32 "
            f"by MPI alone {dense:.2f} ms, {dense / ours:.2f} times (aim 5); these bytes by MPI "
            f"alone {raw:.2f} ms, ratio {ours / raw:.2f} (aim 1.5); dense as ours "
            f"are sent {whole:.2f} ms, {whole / ours:.2f} times")
    say(f"  the floor of any way from one vector to another: {floor:.2f} ms, reading {4 * weights / 1e6:.0f} MB and "
        "writing them")
    return side.message["unknown"]


def _floor(weights, repeats):
    """Milliseconds to read and to write a vector of so many float32."""
    x = np.ones(weights, np.float32)
    taken_ms = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        x.max()
        x.fill(1)
        taken_ms.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken_ms[1:])


def _broadcast(transport, side, message, repeats, say):
    job = {"do": "spread", "num_bytes": len(message), "repeats": repeats}
    own, others = together(transport, job, side)
    taken_ms = {}
    for way in own:
        begins = own[way][:, 0]
        last_ends = np.max([times[way][:, 1] for times in others], axis=0)
        taken_ms[way] = milliseconds(begins, last_ends)
    ours, least, most = taken_ms["ours"]
    bare, bare_least, bare_most = taken_ms["bare"]
    say(f"  {len(message):,} bytes to {len(others)} workers, until the last has them: {ours:.2f} ms ({least:.2f} "
        f"to {most:.2f}); MPI's Bcast {bare:.2f} ms ({bare_least:.2f} to {bare_most:.2f}): ratio {ours / bare:.2f} "
        "(aim 1.3)")


def _replies(transport, replies, repeats, say):
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for _ in transport.map([{"do": "small"}] * replies):
            pass
        rates.append(replies / (time.perf_counter() - start))
    # The first warms up.
    del rates[0]
    say(f"  small replies: {statistics.median(rates):,.0f} a second ({min(rates):,.0f} to "
        f"{max(rates):,.0f}), {replies:,} jobs (aim 5,000 with two workers)")


def _idle(transport, say):
    """Print the processor's share used by waiting ranks: workers for a job, rank 0 for answers."""
    jobs = [{"do": "used"}] * (transport.size - 1)
    before = {reply.rank: reply.arrays for reply in transport.map(jobs)}
    time.sleep(IDLE_S)
    after = {reply.rank: reply.arrays for reply in transport.map(jobs)}
    workers = []
    for rank in before:
        used_s = after[rank]["used"] - before[rank]["used"]
        passed_s = after[rank]["at"] - before[rank]["at"]
        workers.append(float(used_s / passed_s))
    used = _used()
    start = time.perf_counter()
    for _ in transport.map([{"do": "sleep", "seconds": IDLE_S}] * len(jobs)):
        pass
    used_s = _used() - used
    server = used_s / (time.perf_counter() - start)
    say(f"  processor seconds a second of waiting: a worker {statistics.median(workers):.4f}, at most "
        f"{max(workers):.4f}; rank 0 {server:.4f} (aim 0.02)")
