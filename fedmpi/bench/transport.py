"""The costs of the wire: a model to a worker, a message to all, replies a second, waiting ranks.
``mpirun -n 3 fedmpi bench transport``, and ``-n 33``.

Every row stands beside MPI alone in the same processes, turn by turn. A time runs from the moment
rank 0 has the vector until the last receiver has it, by the clock shared by ranks of one machine.

A sparse model goes from a vector to a vector of all its weights, and at sparsity 0.9 four of five
cache lines of both hold a kept weight. The printed floor, reading the one and writing the other,
takes longer than MPI's copy of all of it between two processes. Sparsity pays off if bytes are
dear.
"""

import itertools
import resource
import statistics
import time
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from fedmpi.bench.ratios import summary
from fedmpi.client.worker import Worker, WorkerParts
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.methods.codecs.float32 import float32
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.methods.tasks.classification import classification
from fedmpi.run import launch
from fedmpi.transport.base import own_room
from fedmpi.server.exchange import model_message
from fedmpi.wire import frame, positions
from fedmpi.wire.codecs import fitted

SPARSITY = 0.9
# Inputs of the model's only layer.
WIDTH = 4000
OPTIONS = {"device": "cpu", "precision": "float32", "kernel": "dense"}
# The message of a worker that is ready for the next model.
READY = np.zeros(8, np.uint8)
# Ranks wait for nothing for so long.
IDLE_S = 3.0


def measure(weights, replies, repeats, say):
    """Print the table; returns the exit code.

    ``weights`` is the model's number of them, ``replies`` the number of small jobs."""
    def server(connect):
        return _play(connect(), weights, replies, repeats, say)

    return launch.on_ranks(server, Side, say)


def _play(transport, weights, replies, repeats, say):
    torch.set_num_threads(1)
    if transport.size < 2:
        raise UserError("needs ranks to send to: mpirun -n 3 fedmpi bench transport")
    num_hosts = len(set(transport.hosts))
    if num_hosts > 1:
        raise UserError(
            "needs all ranks on one machine, whose clock they share; fedmpi doctor measures "
            "between machines")
    side = Side()
    together(transport, {"do": "open"}, side)
    say(f"a model of {weights:,} weights at sparsity {SPARSITY} from rank 0 to a worker, "
        f"{transport.size} ranks")
    message = _model(transport, side, weights, repeats, say)
    _broadcast(transport, side, message, repeats, say)
    _replies(transport, replies, repeats, say)
    _idle(transport, say)


def together(transport, job, side, workers=None):
    """``(own, others)``: the arrays of rank 0's part of a job, and of the first ``workers`` (None:
    all), done at the same time."""
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
        """The answer of the method called ``job["do"]``, as arrays."""
        method = getattr(self, job["do"])
        answer = method(**job) or {}
        arrays = {}
        for name, numbers in answer.items():
            arrays[name] = np.asarray(numbers)
        return {}, arrays

    def open(self, do):
        from fedmpi.transport import messages
        self.messages = messages
        self.comm = messages.duplicate(messages.MPI.COMM_WORLD)

    def small(self, do):
        return {"values": np.zeros(64, np.float32)}

    def used(self, do):
        return {"used": _used(), "at": time.perf_counter()}

    # A worker at a job of so many seconds: rank 0 waits for it.
    def sleep(self, do, seconds):
        time.sleep(seconds)

    def model(self, do, weights, repeats):
        """``{way: [time]}``: when rank 0 began to send, or this worker had received.

        One model after the other, in every way, a warm-up before."""
        num_outputs = -(-weights // WIDTH)
        network = nn.Linear(WIDTH, num_outputs, bias=False)
        # Both have the same ways in the same order: a send meets its receive.
        if self.comm.rank == 0:
            ways = sending(self, network)
        else:
            ways = receiving(self, network)
        times = {name: [] for name in ways}
        for _ in range(repeats + 1):
            for name, way in ways.items():
                moment = way()
                times[name].append(moment)
        return times

    def spread(self, do, num_bytes, repeats):
        """``{way: [(begin, end)]}``: when this rank began, and when it had the message; ours and
        MPI's broadcast."""
        buffer = np.zeros(num_bytes, np.uint8)
        ways = {
            "ours": lambda: self.messages.broadcast(self.comm, buffer),
            "bare": lambda: self.comm.Bcast(buffer),
        }
        times = {way: [] for way in ways}
        for _ in range(repeats + 1):
            for way, broadcast in ways.items():
                # All ranks begin together.
                self.messages.barrier(self.comm)
                begin = time.perf_counter()
                broadcast()
                end = time.perf_counter()
                times[way].append((begin, end))
        return times


def _used():
    """Processor seconds of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def sending(side, network):
    """``{way: function}`` of rank 0.

    Each function waits until the worker is ready, sends, and returns the time of its beginning."""
    from fedmpi.transport import messages
    comm = side.comm
    layout, x, _ = bind(network)
    gen = torch.Generator().manual_seed(0)
    codec = fitted(float32(), 0)
    run = SimpleNamespace(layout=layout, codec=codec, strategy=fedavg(), seed=0)
    full = layout.full_mask()
    masks = []
    for _ in range(2):
        is_kept = torch.rand(layout.Q, generator=gen) >= SPARSITY
        masks.append(full & is_kept)
    # {way: the last message}, which MPI alone sends again
    side.message = {}
    # Rounds count from 1.
    t = itertools.count(1)

    def begin():
        messages.receive(comm, 1)
        return time.perf_counter()

    def model(name, mask, known):
        start = begin()
        header = {"kind": "round", "t": next(t), "layout": layout.digest}
        meta, arrays = model_message(run, {"x": x}, 1, mask, known)
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

    # In this order: a way may need the mask or the message of an earlier one.
    return {
        "unknown": unknown,
        "known": lambda: model("known", masks[0], masks[0]),
        "turn": lambda: model("turn", full, None),
        "whole": lambda: model("whole", full, full),
        "dense": lambda: bare(x.numpy()),
        "raw unknown": lambda: bare(side.message["unknown"]),
        "raw known": lambda: bare(side.message["known"]),
    }


def receiving(side, network):
    """``{way: function}`` of the worker, in the order of ``sending``.

    Each function returns the time of its end, with all of the message there."""
    from fedmpi.transport import messages
    comm = side.comm
    worker = _worker(network)
    buffer = np.zeros(network.weight.numel(), np.float32)

    def model():
        messages.send(comm, READY, 0)
        message, _ = messages.receive(comm, 0)
        meta, arrays = messages.opened(message, "the model is")
        worker.receive(meta, arrays)
        return time.perf_counter()

    def bare():
        request = comm.Irecv(buffer, 0)
        messages.send(comm, READY, 0)
        messages.wait(request.Test)
        return time.perf_counter()

    return {
        "unknown": model,
        "known": model,
        "turn": model,
        "whole": model,
        "dense": bare,
        "raw unknown": bare,
        "raw known": bare,
    }


def _worker(network):
    """A worker set up to receive models, without data."""
    parts = WorkerParts(
        network,
        fedavg(),
        None,
        float32(),
        {},
        "",
        None,
        (),
        epochs=1,
        batch_size=1,
        lr=0.1,
        seed=0,
        rounds=1,
        objective=classification(),
        optimiser=None,
        rates=None,
        clip_norm=0.0,
        accumulate=1,
        steps=0,
        augment=None)

    def build(options, shape, outputs):
        return parts

    def pick(name, local_rank):
        return torch.device(name)

    worker = Worker(build, pick)
    worker.receive({"kind": "data", "local_rank": 0, "memory": own_room}, {})
    nothing = np.zeros(network.weight.numel(), bool)
    known, known_array = positions.encode(nothing)
    setup = {
        "kind": "setup",
        "mean": 0.0,
        "std": 1.0,
        "options": OPTIONS,
        "shape": [],
        "classes": 0,
        "window": 0,
        "outputs": 0,
        "last_sent_mask": known,
        "sums_on_workers": False,
        "wants_single_updates": True,
        "statistics": [],
        "constants": "",
        "merges": 0,
    }
    worker.receive(setup, {"last_sent_mask": known_array})
    return worker


def milliseconds(begins, ends):
    """The Summary of milliseconds from ``begins`` to ``ends``, without the warm-up."""
    seconds = np.asarray(ends) - np.asarray(begins)
    taken_ms = 1e3 * seconds[1:]
    return summary(taken_ms.tolist())


def _model(transport, side, weights, repeats, say):
    """Print the model's rows; returns the message with positions."""
    job = {"do": "model", "weights": weights, "repeats": repeats}
    began, (ended,) = together(transport, job, side, 1)
    taken_ms = {}
    for way, begins in began.items():
        taken_ms[way] = milliseconds(begins, ended[way])
    floor_ms = _floor_ms(weights, repeats)
    for way, name in (("known", "positions known"), ("unknown", "positions sent along")):
        num_bytes = len(side.message[way])
        say(_way_line(name, way, taken_ms, num_bytes))
    megabytes = 4 * weights / 1e6
    say(f"  the floor of any way from one vector to another: {floor_ms:.2f} ms, reading "
        f"{megabytes:.0f} MB and writing them")
    return side.message["unknown"]


def _way_line(name, way, taken_ms, num_bytes):
    ours, least, most = taken_ms[way]
    raw = taken_ms[f"raw {way}"].median
    dense = taken_ms["dense"].median
    whole = taken_ms["whole"].median
    to_dense = dense / ours
    to_raw = ours / raw
    to_whole = whole / ours
    return (
        f"  {name}: {ours:.2f} ms ({least:.2f} to {most:.2f}) for {num_bytes:,} bytes; "
        f"dense float32 by MPI alone {dense:.2f} ms, {to_dense:.2f} times (aim 5); these bytes by "
        f"MPI alone {raw:.2f} ms, ratio {to_raw:.2f} (aim 1.5); dense as ours are sent "
        f"{whole:.2f} ms, {to_whole:.2f} times")


def _floor_ms(weights, repeats):
    """Milliseconds to read and to write a vector of so many float32."""
    x = np.ones(weights, np.float32)
    taken_ms = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        x.max()
        x.fill(1)
        seconds = time.perf_counter() - start
        taken_ms.append(1e3 * seconds)
    return statistics.median(taken_ms[1:])


def _broadcast(transport, side, message, repeats, say):
    job = {"do": "spread", "num_bytes": len(message), "repeats": repeats}
    own, others = together(transport, job, side)
    taken_ms = {}
    for way, times in own.items():
        # Column 0 holds beginnings, column 1 ends.
        begins = times[:, 0]
        ends = [worker_times[way][:, 1] for worker_times in others]
        last_ends = np.max(ends, axis=0)
        taken_ms[way] = milliseconds(begins, last_ends)
    num_bytes = len(message)
    num_workers = len(others)
    ratio = taken_ms["ours"].median / taken_ms["bare"].median
    ours = _ms_text(taken_ms["ours"])
    bare = _ms_text(taken_ms["bare"])
    say(f"  {num_bytes:,} bytes to {num_workers} workers, until the last has them: {ours}; "
        f"MPI's Bcast {bare}: ratio {ratio:.2f} (aim 1.3)")


def _ms_text(taken_ms):
    """``1.20 ms (1.00 to 1.40)`` of a Summary."""
    median, least, most = taken_ms
    return f"{median:.2f} ms ({least:.2f} to {most:.2f})"


def _replies(transport, replies, repeats, say):
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for _ in transport.map([{"do": "small"}] * replies):
            pass
        seconds = time.perf_counter() - start
        rates.append(replies / seconds)
    # The first warms up.
    del rates[0]
    rate, least, most = summary(rates)
    say(f"  small replies: {rate:,.0f} a second ({least:,.0f} to {most:,.0f}), {replies:,} jobs "
        "(aim 5,000 with two workers)")


def _idle(transport, say):
    """Print the processor's share used by waiting ranks: workers for a job, rank 0 for answers."""
    shares = _worker_shares(transport)
    worker, _, most = summary(shares)
    server = _server_share(transport)
    say(f"  processor seconds a second of waiting: a worker {worker:.4f}, at most {most:.4f}; "
        f"rank 0 {server:.4f} (aim 0.02)")


def _worker_shares(transport):
    """The processor's share of each worker while it waits for a job."""
    jobs = [{"do": "used"}] * (transport.size - 1)
    # {rank: seconds used, and the clock}
    before = {reply.rank: reply.arrays for reply in transport.map(jobs)}
    time.sleep(IDLE_S)
    after = {reply.rank: reply.arrays for reply in transport.map(jobs)}
    shares = []
    for rank, begin in before.items():
        end = after[rank]
        used_s = end["used"] - begin["used"]
        passed_s = end["at"] - begin["at"]
        share = used_s / passed_s
        shares.append(float(share))
    return shares


def _server_share(transport):
    """The processor's share of rank 0 while it waits for answers."""
    job = {"do": "sleep", "seconds": IDLE_S}
    jobs = [job] * (transport.size - 1)
    used_before_s = _used()
    start = time.perf_counter()
    for _ in transport.map(jobs):
        pass
    used_s = _used() - used_before_s
    passed_s = time.perf_counter() - start
    return used_s / passed_s
