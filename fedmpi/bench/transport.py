"""What the wire costs: a model to a worker, a message to all, replies a second, ranks that wait. ``mpirun -n 3 fedmpi
bench transport``, and ``-n 33``.

Every row stands beside what MPI alone does in the same processes, turn by turn. A time runs from when rank 0 has the
vector until the last receiver has it, by the clock that ranks of one machine share.

A sparse model goes from a vector to a vector of all its weights, and at sparsity 0.9 four of five cache lines of both
hold a kept weight: reading the one and writing the other, the floor that is printed, takes longer than MPI needs to
copy all of it between two processes. What sparsity saves shows where bytes are dear.
"""

import itertools
import resource
import statistics
import time
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from fedmpi.run import launch
from fedmpi.client.worker import Worker, WorkerParts
from fedmpi.core.errors import UserError
from fedmpi.server.exchange import model_message
from fedmpi.core.layout import bind
from fedmpi.methods.tasks.classification import classification
from fedmpi.methods.codecs import values
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.wire import frame, positions

SPARSITY, WIDTH = 0.9, 4000
OPTIONS = {"device": "cpu", "precision": "float32"}
IDLE_S = 3.0              # how long ranks wait for nothing


def measure(weights, replies, repeats, say):
    """Print the table; returns the exit code. ``weights`` of the model, ``replies`` to small jobs that are counted."""
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
    """What each of the first ``workers`` answers to a job of its own, while rank 0 does its part: ``(own, others)``."""
    own = []

    def mine():
        own.append(side.run(job, {})[1])
        yield

    count = transport.size - 1 if workers is None else workers
    others = [reply.arrays for reply in transport.map([job] * count, meanwhile=mine())]
    return own[0], others


class Side:
    """Rank 0's part of an exchange, and a worker's: the same job for both."""

    def receive(self, meta, arrays):
        pass

    def run(self, job, arrays):
        return {}, {name: np.asarray(array) for name, array in (getattr(self, job["do"])(**job) or {}).items()}

    def open(self, do):
        from fedmpi.transport import messages
        self.messages, self.comm = messages, messages.duplicate(messages.MPI.COMM_WORLD)

    def small(self, do):
        return {"values": np.zeros(64, np.float32)}

    def used(self, do):
        return {"used": _used(), "at": time.perf_counter()}

    def sleep(self, do, seconds):
        time.sleep(seconds)

    def model(self, do, weights, repeats):
        """When rank 0 began, or this worker had it all: one model after the other, in every way, a warm-up before."""
        network = nn.Linear(WIDTH, -(-weights // WIDTH), bias=False)
        ways = sending(self, network) if self.comm.rank == 0 else receiving(self, network)
        times = {name: [] for name in ways}
        for _ in range(repeats + 1):
            for name, way in ways.items():
                times[name].append(way())
        return times

    def spread(self, do, num_bytes, repeats):
        """When this rank began and had the message, by our broadcast and by MPI's."""
        buffer, found = np.zeros(num_bytes, np.uint8), {"ours": [], "bare": []}
        for _ in range(repeats + 1):
            for way, what in (("ours", lambda: self.messages.broadcast(self.comm, buffer)),
                              ("bare", lambda: self.comm.Bcast(buffer))):
                self.messages.barrier(self.comm)
                begin = time.perf_counter()
                what()
                found[way].append((begin, time.perf_counter()))
        return found


def _used():
    """Processor seconds of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def sending(side, network):
    """``{way: function}``, each of which waits until the worker is ready and returns when it began."""
    from fedmpi.transport import messages
    layout, x, _ = bind(network)
    gen, comm = torch.Generator().manual_seed(0), side.comm
    fed = SimpleNamespace(layout=layout, codec=values.fitted(values.float32(), 0), strategy=fedavg(),
                          seed=0)
    masks = [layout.full_mask() & (torch.rand(layout.Q, generator=gen) >= SPARSITY) for _ in range(2)]
    side.message, t = {}, itertools.count(1)

    def begin():
        messages.receive(comm, 1)
        return time.perf_counter()

    def model(name, mask, known):
        start, header = begin(), {"kind": "round", "t": next(t), "layout": layout.digest}
        meta, arrays = model_message(fed, {"x": x}, 1, mask, known)
        side.message[name] = frame.pack(header | meta, arrays)
        messages.send(comm, side.message[name], 1)
        return start

    def unknown():
        masks.reverse()
        return model("unknown", masks[0], None)

    def bare(buffer):
        start, request = begin(), comm.Isend(buffer, 1)
        messages.wait(request.Test)
        return start

    full = layout.full_mask()
    return {"unknown": unknown, "known": lambda: model("known", masks[0], masks[0]),
            "turn": lambda: model("turn", full, None), "whole": lambda: model("whole", full, full),
            "dense": lambda: bare(x.numpy()), "raw unknown": lambda: bare(side.message["unknown"]),
            "raw known": lambda: bare(side.message["known"])}


def receiving(side, network):
    """``{way: function}`` of the worker, each of which returns when it had it all."""
    from fedmpi.transport import messages
    comm = side.comm
    parts = WorkerParts(network, fedavg(), None, values.float32(), {}, "", None, (), epochs=1, batch_size=1, lr=0.1,
                        seed=0, rounds=1, objective=classification(), optimiser=None, rates=None,
                        clip_norm=0.0, steps=0,
                        augment=None)
    worker = Worker(lambda options, shape, outputs: parts, lambda name, local: torch.device(name))
    worker.receive({"kind": "data", "local_rank": 0}, {})
    known, array = positions.encode(np.zeros(network.weight.numel(), bool))
    worker.receive({"kind": "setup", "mean": 0.0, "std": 1.0, "options": OPTIONS, "shape": [],
                    "classes": 0, "outputs": 0,
                    "known": known, "sums": False, "values": True, "statistics": [], "constants": ""},
                   {"known": array, "frozen": np.zeros(0, np.uint8)})
    buffer = np.zeros(network.weight.numel(), np.float32)

    def model():
        messages.send(comm, np.zeros(8, np.uint8), 0)
        worker.receive(*messages.opened(messages.receive(comm, 0)[0], "the model is"))
        return time.perf_counter()

    def bare():
        request = comm.Irecv(buffer, 0)
        messages.send(comm, np.zeros(8, np.uint8), 0)
        messages.wait(request.Test)
        return time.perf_counter()

    return dict.fromkeys(("unknown", "known", "turn", "whole"), model) | dict.fromkeys(
        ("dense", "raw unknown", "raw known"), bare)


def milliseconds(begins, ends):
    """Median, least and largest, without the warm-up."""
    took = 1e3 * (np.asarray(ends) - np.asarray(begins))[1:]
    return float(np.median(took)), float(took.min()), float(took.max())


def _model(transport, side, weights, repeats, say):
    """Print the model's rows; returns the message that holds positions."""
    began, (ended,) = together(transport, {"do": "model", "weights": weights, "repeats": repeats}, side, 1)
    took = {way: milliseconds(began[way], ended[way]) for way in began}
    floor = _floor(weights, repeats)
    for way, name in (("known", "positions known"), ("unknown", "positions sent along")):
        ours, least, most = took[way]
        say(f"  {name}: {ours:.2f} ms ({least:.2f} to {most:.2f}) for {len(side.message[way]):,} bytes; dense float32 "
            f"by MPI alone {took['dense'][0]:.2f} ms, {took['dense'][0] / ours:.2f} times (aim 5); these bytes by MPI "
            f"alone {took['raw ' + way][0]:.2f} ms, ratio {ours / took['raw ' + way][0]:.2f} (aim 1.5); dense as ours "
            f"are sent {took['whole'][0]:.2f} ms, {took['whole'][0] / ours:.2f} times")
    say(f"  the floor of any way from one vector to another: {floor:.2f} ms, reading {4 * weights / 1e6:.0f} MB and "
        "writing them")
    return side.message["unknown"]


def _floor(weights, repeats):
    x, found = np.ones(weights, np.float32), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        x.max()
        x.fill(1)
        found.append(1e3 * (time.perf_counter() - start))
    return statistics.median(found[1:])


def _broadcast(transport, side, message, repeats, say):
    own, others = together(transport, {"do": "spread", "num_bytes": len(message), "repeats": repeats}, side)
    took = {way: milliseconds(own[way][:, 0], np.max([each[way][:, 1] for each in others], axis=0)) for way in own}
    (ours, *spread), (bare, *bares) = took["ours"], took["bare"]
    say(f"  {len(message):,} bytes to {len(others)} workers, until the last has them: {ours:.2f} ms ({spread[0]:.2f} "
        f"to {spread[1]:.2f}); MPI's Bcast {bare:.2f} ms ({bares[0]:.2f} to {bares[1]:.2f}): ratio {ours / bare:.2f} "
        "(aim 1.3)")


def _replies(transport, replies, repeats, say):
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for _ in transport.map([{"do": "small"}] * replies):
            pass
        rates.append(replies / (time.perf_counter() - start))
    say(f"  small replies: {statistics.median(rates[1:]):,.0f} a second ({min(rates[1:]):,.0f} to "
        f"{max(rates[1:]):,.0f}), {replies:,} jobs (aim 5,000 with two workers)")


def _idle(transport, say):
    """What ranks burn that wait: workers for a job, rank 0 for answers."""
    jobs = [{"do": "used"}] * (transport.size - 1)
    before = {reply.rank: reply.arrays for reply in transport.map(jobs)}
    time.sleep(IDLE_S)
    after = {reply.rank: reply.arrays for reply in transport.map(jobs)}
    workers = [float((after[rank]["used"] - before[rank]["used"]) / (after[rank]["at"] - before[rank]["at"]))
               for rank in before]
    used, start = _used(), time.perf_counter()
    for _ in transport.map([{"do": "sleep", "seconds": IDLE_S}] * len(jobs)):
        pass
    server = (_used() - used) / (time.perf_counter() - start)
    say(f"  processor seconds a second of waiting: a worker {statistics.median(workers):.4f}, at most "
        f"{max(workers):.4f}; rank 0 {server:.4f} (aim 0.02)")
