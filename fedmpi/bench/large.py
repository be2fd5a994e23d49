"""Rounds of a large model beside the same bytes alone. ``mpirun -n 3 fedmpi bench large``.

The engine is the real one, from the message of the model to the checkpoint. Only the gradient is
given, see ``fedmpi.bench.given``, as a forward and a backward pass would hide the rest. A client
takes one step of AdamW, and there is a client a worker.

A phase's reference is what it cannot do without: so many bytes copied, sent or written, and torch's
own step. They are measured alone, turn by turn with rounds, see ``fedmpi.bench.alone``. Ranks of one
machine share a clock, by which phases begin and end. Processor time, of which other programs take
less, is compared by the rank.

Memory is the most that a process has of its own (RssAnon, looked at every few milliseconds), less
that of a tiny model, by the weight. Memory that ranks of a node share is told by itself.
"""

import os
import statistics
import tempfile
import threading
import time
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.bench import alone
from fedmpi.bench import round as works
from fedmpi.bench.ratios import ratios, spread, turn
from fedmpi.bench.reference import num_workers
from fedmpi.bench.transport import together
from fedmpi.build.federation import shared_arrays
from fedmpi.client.jobs import Job, job_of
from fedmpi.core.errors import UserError
from fedmpi.core.words import plural
from fedmpi.run import launch
from fedmpi.server import loop
from fedmpi.store.checkpoint import checkpoints

MODEL = "fedmpi.bench.given:given:weights={weights:.0f}"
OPTIONS = works.BARE | {
    "dataset": "synthetic:samples=400,size=4",
    "optimiser": "adamw",
    "lr": 0.001,
    "local_steps": 1,
    "batch_size": 4,
}
# {strategy: its vectors on the server beside the model}
STRATEGIES = {"fedavg": 0, "diloco": 1}
# Weights of the model that is played first, so that libraries and buffers of any model are there.
TINY = 20_000
# Rounds before the memory is read: the second round reuses the first one's buffers.
ROUNDS = 2
PHASES = ("model out", "step", "answer", "sum and merge", "checkpoint")
# Whose processor time is told.
SERVER, WORKER = "busy, rank 0", "busy, a worker"
STATUS = "/proc/self/status"
# Seconds between two looks at the memory.
LOOK_S = 0.005


class Moments(NamedTuple):
    """Seconds of one training, by the clock of the machine."""

    begin: float
    stepped: float
    end: float


class Stamped:
    """A worker that notes when trainings begin, when their last step is done, and when they end.

    It also takes the bench's own jobs: ``{"told": ...}``, ``{"alone": ...}``. All else is the
    worker's.
    """

    def __init__(self, worker):
        self.worker = worker
        self.side = alone.Side()
        self.memory = Memory()
        self.moments = []
        self.stepped = 0.0

    def __getattr__(self, name):
        # The transport's other calls.
        return getattr(self.worker, name)

    def receive(self, meta, arrays):
        self.worker.receive(meta, arrays)
        if meta["kind"] == "setup":
            parts = self.worker.parts
            self.worker.parts = parts._replace(optimiser=self._noted(parts.optimiser))

    def _noted(self, optimiser):
        """The optimiser, whose steps are noted."""
        def fused(*arguments):
            optimiser.fused(*arguments)
            self.stepped = time.perf_counter()

        return optimiser._replace(fused=fused)

    def run(self, job, arrays):
        if "told" in job:
            moments, self.moments = self.moments, []
            busy_s = np.array([time.process_time()])
            peaks = self.memory.look()
            return {}, {"moments": np.array(moments), "memory": peaks, "busy": busy_s}
        if "alone" in job:
            return self.side.run(job, arrays)
        begin = time.perf_counter()
        answer = self.worker.run(job, arrays)
        if job_of(job) is Job.TRAIN:
            end = time.perf_counter()
            self.moments.append(Moments(begin, self.stepped, end))
        return answer


class Memory:
    """Watches this process's memory, from its beginning on, in a thread of its own."""

    def __init__(self):
        self.peaks_kb = np.zeros(2, np.int64)
        threading.Thread(target=self._watch, name="memory", daemon=True).start()

    def _watch(self):
        while True:
            self.look()
            time.sleep(LOOK_S)

    def look(self):
        """int64 (2,): the most bytes so far of its own, and of memory shared with others."""
        with open(STATUS, encoding="utf-8") as file:
            status = dict(line.split(":", 1) for line in file)
        now_kb = [int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")]
        self.peaks_kb = np.maximum(self.peaks_kb, now_kb)
        return 1024 * self.peaks_kb


class Limits(NamedTuple):
    """What may be reached at most: exit code 1 for more."""

    # Of a whole round by the same bytes alone.
    ratio: float
    # Bytes a weight.
    worker: float
    server: float


def measure(weights, strategy, repeats, folder, limits, say):
    """Print seconds and bytes of a round by phase, and memory by the weight; returns the exit code.

    The model has about ``weights``. The run file is written to ``folder``, None: a temporary one.
    """
    def server(connect):
        return _play(connect(), weights, strategy, repeats, folder, limits, say)

    def worker():
        return Stamped(launch.worker())

    return launch.on_ranks(server, worker, say)


def _play(transport, weights, strategy, repeats, folder, limits, say):
    torch.set_num_threads(1)
    _check(transport)
    clients = num_workers(transport)
    options = OPTIONS | {"strategy": strategy, "clients": clients, "evaluate_every": 1000}
    memory = Memory()
    with tempfile.TemporaryDirectory(dir=folder) as own_folder:
        tiny = _arm(options, TINY, transport, own_folder, say)
        transport.share({"kind": "data"}, shared_arrays(tiny.setup.data))
        tiny.set_up()
        _rounds(tiny, transport, ROUNDS)
        before = _memories(transport, memory)
        arm = _arm(options, weights, transport, own_folder, say)
        arm.set_up()
        say(_head(arm, strategy, clients))
        _rounds(arm, transport, ROUNDS)
        after = _memories(transport, memory)
        taken, reference = _turns(arm, transport, strategy, repeats, own_folder, say)
    worst = _tell_phases(taken, reference, say)
    K = arm.run.layout.num_values
    per_weight = _per_weight(before, after, K)
    _tell_memory(per_weight, limits, say)
    most_worker = max(own for rank, (own, _) in per_weight.items() if rank)
    most_server = per_weight[0][0]
    missed = worst > limits.ratio or most_worker > limits.worker or most_server > limits.server
    return int(missed)


def _check(transport):
    if transport.size < 2:
        raise UserError("needs workers of their own: mpirun -n 3 fedmpi bench large")
    if len(set(transport.hosts)) > 1:
        raise UserError("needs all ranks on one machine, whose clock they share: "
                        "mpirun -n 3 fedmpi bench large")
    if not os.path.exists(STATUS):
        raise UserError("memory is read from /proc, which this system lacks: take a Linux")


def _arm(options, weights, transport, folder, say):
    """A ``works.Arm`` of a model with about so many weights."""
    options = options | {"model": MODEL.format(weights=weights)}
    path = os.path.join(folder, f"{weights:.0f}.h5")
    arm = works.Arm(options, None, transport, path, say)
    # As in a run: the state has its own first values.
    network = arm.setup.network._replace(first=None)
    arm.setup = arm.setup._replace(network=network)
    return arm


def _head(arm, strategy, clients):
    layout = arm.run.layout
    return (f"{layout.num_values:,} weights, {strategy}, a step of AdamW with a given gradient, "
            f"{plural(clients, 'worker')} with a client each; seconds of a round, and of the same "
            "bytes alone")


# ---------------------------------------------------------------- rounds


def _rounds(arm, transport, rounds):
    """The seconds of the last of so many rounds, by phase."""
    for _ in range(rounds):
        seconds = _round(arm, transport)
    return seconds


def _round(arm, transport):
    """``{phase or rank: seconds}`` of one round, and of its record and checkpoint."""
    rows = []
    arm.done += 1
    worker_busy_s = _busy_s(_told(transport))
    begin, begin_busy = time.perf_counter(), time.process_time()
    arm.state = loop.simulate(
        arm.run, arm.state, arm.store, arm.done, arm.done, on_round=rows.append)
    saved = time.perf_counter()
    server_s = time.process_time() - begin_busy
    told = _told(transport)
    worker_s = np.max(_busy_s(told) - worker_busy_s)
    merged = begin + rows[0]["round_s"]
    # The last worker to begin has the model last, and so on.
    begins, steps, answers, ends = [], [], [], []
    for reply in told:
        first, stepped, last = reply.arrays["moments"].T
        begins.append(first[0])
        steps.append(np.sum(stepped - first))
        answers.append(np.sum(last - stepped))
        ends.append(last[-1])
    seconds = (max(begins) - begin, max(steps), max(answers), merged - max(ends), saved - merged)
    by_phase = dict(zip(PHASES, map(float, seconds)))
    return by_phase | {SERVER: server_s, WORKER: float(worker_s)}


def _busy_s(told):
    """The processor time of each worker so far, by rank."""
    by_rank = {reply.rank: float(reply.arrays["busy"][0]) for reply in told}
    return np.array([by_rank[rank] for rank in sorted(by_rank)])


def _told(transport):
    """The workers' answers about themselves."""
    jobs = [{"told": "all"}] * num_workers(transport)
    return list(transport.map(jobs))


def _memories(transport, memory):
    """``{rank: (the most bytes of its own, the most shared bytes)}``; ``memory`` is rank 0's."""
    memories = {reply.rank: reply.arrays["memory"].copy() for reply in _told(transport)}
    return {0: memory.look()} | memories


# ---------------------------------------------------------------- the same bytes alone


def _turns(arm, transport, strategy, repeats, folder, say):
    """``(rounds, references)``: for each phase the seconds of every repeat."""
    names = (*PHASES, SERVER, WORKER)
    taken = {name: [] for name in names}
    reference = {name: [] for name in names}
    side = alone.Side()
    together(transport, {"alone": "open", "pieces": 0}, side)
    for number in range(repeats):
        of_round = _round(arm, transport)
        of_bytes = _alone(arm, transport, side, strategy, folder)
        for name in names:
            taken[name].append(of_round[name])
            reference[name].append(of_bytes[name])
        round_s, bytes_s = _of_phases(of_round), _of_phases(of_bytes)
        say(f"{turn(number + 1)}: a round {round_s:.2f} s, the same bytes alone {bytes_s:.2f} s")
    return taken, reference


def _of_phases(seconds):
    return sum(seconds[phase] for phase in PHASES)


def _alone(arm, transport, side, strategy, folder):
    """``{phase or rank: seconds}`` of what it cannot do without, on the same ranks."""
    pieces = arm.run.layout.num_values / alone.PIECE
    others = num_workers(transport) - 1
    vectors = STRATEGIES[strategy]
    # Copies of workers share the memory's bandwidth, as in a round.
    copied = _of_workers(transport, "copied", pieces)
    stepped = _of_workers(transport, "stepped", pieces)
    own_copied = side.copied(pieces)
    spread_here, spread_there = _of_all(transport, "spread", side, pieces)
    sent_here, sent_there = _of_all(transport, "sent", side, pieces)
    written = alone.written(folder, _checkpoint_bytes(arm.store))
    # Sums of 8 bytes are added on rank 0 as in three copies; then it reads them, writes their mean
    # (1.5), and adds this to the model (1.5), by way of the strategy's vectors (1 each). The digest
    # reads the model (.5).
    merging = 3 * others + 3.5 + vectors
    return {
        # From the model into the message, to everybody, from the message into the model.
        "model out": own_copied.wall + spread_here.wall + copied.wall,
        # From the received model into the trained one; the gradient, and the step.
        "step": copied.wall + stepped.wall,
        # Reads two vectors, reads and writes sums of 8 bytes: as much as three copies.
        "answer": 3 * copied.wall,
        "sum and merge": 2 * sent_here.wall + merging * own_copied.wall,
        "checkpoint": written.wall,
        SERVER: ((1 + merging) * own_copied.busy + spread_here.busy + 2 * sent_here.busy
                 + written.busy),
        WORKER: 5 * copied.busy + stepped.busy + spread_there.busy + 2 * sent_there.busy,
    }


def _of_workers(transport, name, pieces):
    """The ``Taken`` of the slowest worker, all of them at the same time."""
    jobs = [{"alone": name, "pieces": pieces}] * num_workers(transport)
    return _slowest(reply.arrays for reply in transport.map(jobs))


def _of_all(transport, name, side, pieces):
    """``(rank 0's Taken, the slowest worker's)`` at the same job."""
    own, others = together(transport, {"alone": name, "pieces": pieces}, side)
    return _slowest([own]), _slowest(others)


def _slowest(answers):
    """The most of each number among the ``Taken`` of the answers."""
    rows = np.array([answer["taken"] for answer in answers])
    return alone.Taken(*rows.max(axis=0).tolist())


def _checkpoint_bytes(store):
    """The size of the newest checkpoint."""
    _, name = checkpoints(store.folder)[0]
    return os.path.getsize(os.path.join(store.folder, name))


# ---------------------------------------------------------------- in words


def _tell_phases(taken, reference, say):
    """Print a line a phase, one for all, and one for each kind of rank; returns all's ratio."""
    for phase in PHASES:
        say(_phase_line(phase, taken[phase], reference[phase]))
    whole = _sums(taken)
    plain = _sums(reference)
    say(_phase_line("round", whole, plain))
    for rank in (SERVER, WORKER):
        say(_phase_line(rank, taken[rank], reference[rank]))
    return statistics.median(ratios(whole, plain))


def _sums(seconds):
    """The seconds of all phases together, of every repeat."""
    return [sum(numbers) for numbers in zip(*[seconds[phase] for phase in PHASES])]


def _phase_line(phase, taken, reference):
    own_s = statistics.median(taken)
    plain_s = statistics.median(reference)
    return (f"  {phase:14} {own_s:8.3f} s against {plain_s:.3f} s: "
            f"ratio {spread(ratios(taken, reference))}")


def _per_weight(before, after, K):
    """``{rank: (bytes of its own, shared bytes)}`` by the weight, of K."""
    per_weight = {}
    for rank, peaks in after.items():
        own, shared = (peaks - before[rank]) / K
        per_weight[rank] = own, shared
    return per_weight


def _tell_memory(per_weight, limits, say):
    for rank, (own, shared) in sorted(per_weight.items()):
        name, limit = f"rank {rank}", limits.worker
        if rank == 0:
            name, limit = "rank 0, the server", limits.server
        say(f"  memory of {name}: {own:.1f} bytes a weight of its own (goal {limit:g}), "
            f"{shared:.1f} shared by the ranks of a node")
