"""Rank 0's work in a round, each step beside a reference in the same process: a pass over the same
bytes, one topk a layer, a plain write. ``fedmpi bench server``; one thread, no MPI.
"""

import itertools
import os
import statistics
import tempfile
import time
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from fedmpi import catalog
from fedmpi.bench.ratios import ratios
from fedmpi.bench.round import BARE
from fedmpi.build.federation import shared_arrays
from fedmpi.build.setup import message, set_up
from fedmpi.core import reduce
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.layout import ALIGN, Layout, Slot
from fedmpi.core.mask import budgets, draw, positions, swap
from fedmpi.core.parts import Replies, Round, Updates
from fedmpi.methods.contribution.cosine import cosines
from fedmpi.methods.pruning.rigl import largest_pruned
from fedmpi.methods.tasks.classification import classification
from fedmpi.plugins.spec import make
from fedmpi.run import launch
from fedmpi.server import loop, record
from fedmpi.server.run_state import initial_state
from fedmpi.store import RunFile
from fedmpi.transport.local import Local

CLIENTS, KEPT = 32, 1_100_000
COHORTS = (10, 100, 1000)
SPARSITY = 0.8
PRUNERS = (
    "static:init=magnitude",
    "set:every=1",
    "rigl:every=1",
    "residual:every=1",
    "feddst:every=1",
    "adaptive:every=1",
    "prunefl:every=1",
)
# Clients ranked by adaptive, and with masks united by feddst.
ASKED = 10
# Values of a logistic regression on 784 pixels, and of a ResNet-18.
CHECKPOINTS = {"small checkpoint": 7850, "large checkpoint": 11_200_000}
OPTIONS = BARE | {
    "dataset": "synthetic:samples=2000,size=8",
    "model": "logistic",
    "clients": 1000,
    "batch_size": 10,
    "rounds": 1000,
    "evaluate_every": 1000,
}


def measure(folder, repeats, say):
    """Print every step beside its reference; returns the exit code."""
    torch.set_num_threads(1)
    # As rank 0 does.
    keep_freed_memory()
    for part in (_merging, _pruning, partial(_writing, folder), cohorts):
        part(repeats, say)
    return 0


def side_by_side(ours, reference, repeats):
    """``(seconds of ours, seconds of the reference, ratio)``: medians of ``repeats``, in turn,
    after one of each."""
    seconds = {ours: [], reference: []}
    for _ in range(repeats + 1):
        for work, taken in seconds.items():
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    own = seconds[ours][1:]
    other = seconds[reference][1:]
    quotients = ratios(own, other)
    own_s = statistics.median(own)
    other_s = statistics.median(other)
    return own_s, other_s, statistics.median(quotients)


def _print(say, name, medians, reference):
    """Print one step's line, from the answer of ``side_by_side``."""
    own_s, reference_s, ratio = medians
    own_ms = 1e3 * own_s
    reference_ms = 1e3 * reference_s
    say(f"{name}: {own_ms:.2f} ms against {reference_ms:.2f} ms of {reference}: "
        f"ratio {ratio:.2f}")


# ------------------------------------------------------------- merging and scoring


def _merging(repeats, say):
    gen = torch.Generator().manual_seed(0)
    updates, weights = _updates(gen)
    long = _with_three_long(updates)
    masked = _under_masks(updates, gen)
    U, B = updates.U, masked.B
    megabytes = 4 * U.numel() / 1e6
    say(f"{CLIENTS} clients, {KEPT:,} kept values: {megabytes:.0f} MB")

    def compare(name, ours, reference, text):
        medians = side_by_side(ours, reference, repeats)
        _print(say, name, medians, text)

    def read():
        return U.numpy().max()

    def read_both():
        return U.numpy().max(), B.view(torch.uint8).numpy().max()

    def gram():
        return U @ U.T

    def similarity():
        return F.cosine_similarity(U, (weights.float() @ U)[None])

    mean = partial(reduce.mean, updates, weights)
    clipping_mean = partial(reduce.mean, updates, weights, rho=0.1, clip=3.0)
    clipped_mean = partial(reduce.mean, long, weights, rho=0.1, clip=3.0)
    masked_mean = partial(reduce.mean, masked, weights, rho=0.1)
    score = partial(cosines, updates, weights)
    reading = "a pass over them (max)"
    compare("mean", mean, read, reading)
    compare("mean, none to be clipped", clipping_mean, read, reading)
    compare("mean, 3 clipped", clipped_mean, read, reading)
    compare("mean under own masks", masked_mean, read, reading)
    compare("mean under own masks", masked_mean, read_both, "a pass over them and the masks (max)")
    compare("cosines", score, read, reading)
    compare("cosines", score, gram, "the Gram product U U'")
    compare("cosines", score, similarity, "torch's cosine_similarity with the mean")


def _updates(gen):
    """``(Updates, weights)`` of CLIENTS with all of KEPT weights, of equal weight."""
    weights = torch.full((CLIENTS,), 1 / CLIENTS, dtype=torch.float64)
    updates = Updates(
        U=torch.randn(CLIENTS, KEPT, generator=gen),
        # Every client holds every weight.
        B=None,
        places=torch.arange(KEPT, dtype=torch.int32),
        n=weights,
        trained=KEPT)
    return updates, weights


def _with_three_long(updates):
    """The updates, three clients' ten times longer than the others'."""
    lengths = torch.ones(CLIENTS, 1)
    clients = torch.tensor([3, 9, 20])
    # Beyond three times the median: these are clipped.
    lengths.index_fill_(0, clients, 10.0)
    return updates._replace(U=updates.U * lengths)


def _under_masks(updates, gen):
    """The updates, each under a mask of its own of seven tenths of the weights."""
    numbers = torch.rand(CLIENTS, KEPT, generator=gen)
    B = numbers < 0.7
    U = updates.U * B
    return updates._replace(U=U, B=B)


# ------------------------------------------------------------- pruning and growing


def resnet18():
    """The ``Layout`` of the convolutions and the classifier of ResNet-18, 11,678,912 weights."""
    shapes = [(64, 3, 7, 7)]
    width = 64
    for channels in (64, 128, 256, 512):
        shapes.append((channels, width, 3, 3))
        shapes += 3 * [(channels, channels, 3, 3)]
        if channels != width:
            # The shortcut around a block that changes the width.
            shapes.append((channels, width, 1, 1))
        width = channels
    return layout_of([*shapes, (1000, 512)])


def layout_of(shapes):
    """A ``Layout`` of weights only."""
    slots = []
    end = 0
    for number, shape in enumerate(shapes):
        size = int(np.prod(shape))
        slots.append(Slot(f"layer{number}", shape, end, size))
        # Layers begin at multiples of ALIGN.
        num_blocks = -(-size // ALIGN)
        end += num_blocks * ALIGN
    return Layout(tuple(slots), (), (), end, end, end)


def _pruning(repeats, say):
    # Few layers of many weights, beside many layers.
    fully_connected = layout_of([(3000, 2000), (2500, 2000), (200, 1000)])
    for layout in (resnet18(), fully_connected):
        _pruning_of(layout, repeats, say)


def _pruning_of(layout, repeats, say):
    """Print the lines of all pruners on one network."""
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(layout.Q, generator=gen)
    # Padding stays zero.
    x = x * layout.real
    kept = budgets(layout, SPARSITY)
    topks = partial(_topks, layout, x, kept)
    num_layers = len(layout.weights)
    say(f"{num_layers} layers, {layout.num_weights:,} weights, sparsity {SPARSITY}")
    for spec in PRUNERS:
        evolving = _evolving(spec, layout, x)
        medians = side_by_side(evolving, topks, repeats)
        name, _, _ = spec.partition(":")
        _print(say, name, medians, "one topk a layer")


def _topks(layout, x, kept):
    """The largest weights of each layer, ``kept`` of them."""
    largest = []
    for slot, k in zip(layout.weights, kept):
        magnitudes = x[slot.span].abs()
        largest.append(torch.topk(magnitudes, k, sorted=False))
    return largest


def _evolving(spec, layout, x):
    """A function pruning and growing once; for a pruner with a fixed mask, the function making the
    mask."""
    pruner = make(catalog.PRUNERS, spec)

    def started():
        return pruner.init(layout, x, Round(0, 100), np.random.default_rng(0))

    if spec.startswith("static"):
        return started
    state, mask = started()
    gen = np.random.default_rng(1)
    updates = _own_masks(layout, mask, gen)
    replies = _replies(spec, layout, mask, updates)
    vector = x
    if not pruner.keeps_pruned_values:
        # Weights grown by clients are there after a merge, too.
        vector = torch.where(mask, x, 0.0)
        vector.index_fill_(0, updates.support.long(), 0.01)

    def evolved():
        return pruner.evolve(state, mask, vector, replies, Round(1, 100), gen)

    return evolved


def _replies(spec, layout, mask, updates):
    """A round's ``Replies`` to the pruner, with the report of one client."""
    numbers = torch.arange(1.0, 1 + ASKED, dtype=torch.float64)
    return Replies(
        updates,
        torch.ones(1, dtype=torch.float64),
        [_report(spec, layout, mask)],
        layout,
        (1.0,) * len(layout.weights),
        torch.arange(ASKED),
        numbers,
        numbers)


def _report(spec, layout, mask):
    """One client's report on its gradients, in the pruner's form."""
    gen = torch.Generator().manual_seed(1)
    gradient = torch.randn(layout.Q, generator=gen)
    if spec.startswith("rigl"):
        # RigL's usual 30 % of the kept weights, and twice as many candidates.
        moves = [int(0.3 * k) for k in layout.kept(mask)]
        return largest_pruned(layout, mask, gradient, moves, oversample=2.0)
    is_weight = layout.full_mask()
    squares = gradient.square()[is_weight]
    return {
        "squares": squares.numpy(),
        "others": np.array([1.0, 100.0]),
    }


def _own_masks(layout, mask, gen):
    """``Updates`` without values, of ASKED clients; each has moved 5 % of the weights of
    ``mask``."""
    moves = [int(0.05 * k) for k in layout.kept(mask)]

    def grow(slot, k):
        return draw(~mask[slot.span], k, gen)

    masks = []
    for _ in range(ASKED):
        scores = torch.randn(layout.Q)
        moved = swap(layout, mask, moves, scores, grow)
        masks.append(moved)
    stacked = torch.stack(masks)
    union = stacked.any(dim=0)
    support = positions(union).int()
    no_values = torch.zeros(ASKED, 0)
    weights = torch.ones(ASKED, dtype=torch.float64)
    return Updates(no_values, stacked.index_select(1, support), support, weights, len(support))


# ------------------------------------------------------------- rows and checkpoints


def _writing(folder, repeats, say):
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        store = _new_run(scratch, "run")
        _appending(store, scratch, folder, repeats, say)
        for name, num_values in CHECKPOINTS.items():
            _saving(store, scratch, name, num_values, repeats, say)


def _new_run(folder, name):
    """A run file without rows."""
    path = os.path.join(folder, f"{name}.h5")
    rounds = _round_columns()
    clients = _client_columns()
    # Without attributes and a population, and with an empty partition.
    return RunFile.create(path, {}, rounds, clients, {}, ([0], []))


def _round_columns():
    return record.round_columns(False, 1, ["size"], classification())


def _client_columns():
    return record.client_columns(["size"])


def _appending(store, scratch, folder, repeats, say):
    rounds = _round_columns()
    clients = _client_columns()
    row = {}
    for column in rounds:
        row[column.name] = 0
        if column.width:
            row[column.name] = [0] * column.width
    rows = {column.name: np.zeros(10, column.dtype) for column in clients}
    place = folder or tempfile.gettempdir()
    say(f"a row of {len(rounds)} columns and 10 rows of {len(clients)}, in {place}")

    def append():
        store.append(row, rows)

    reference = partial(_plain, scratch, bytes(8192), False)
    # A single one is short.
    medians = side_by_side(append, reference, 10 * repeats)
    _print(say, "append", medians, "a plain write of 8 KiB")


def _saving(store, scratch, name, num_values, repeats, say):
    """Print the line of a checkpoint of so many values and their mask."""
    state = {
        "x": torch.randn(num_values),
        "mask": torch.ones(num_values, dtype=torch.bool),
    }
    parts = [tensor.numpy().tobytes() for tensor in state.values()]
    content = b"".join(parts)

    def save():
        store.save(state, 1)
        store.settle()

    reference = partial(_plain, scratch, content, True)
    medians = side_by_side(save, reference, repeats)
    megabytes = len(content) / 1e6
    title = f"{name}, {megabytes:.2f} MB, until it is on the disk"
    _print(say, title, medians, "a plain write and fsync")


def _plain(folder, content, sync):
    path = os.path.join(folder, "plain")
    with open(path, "wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


# ------------------------------------------------------------- cohorts


class Idle:
    """A worker with idle clients: their updates are zeros."""

    def __init__(self, worker):
        self.worker = worker
        self.receive = worker.receive
        self.total = worker.total

    def run(self, job, arrays):
        model_bytes = 4.0 * self.worker.layout.P
        # In the order of ``client.numbers.Number``.
        numbers = np.array([2.0, 1.0, 2.0, 0, 0, 0, model_bytes, 1.0, 1.0, 1.0])
        meta = {
            "kind": "update",
            "t": self.worker.t,
            "support": self.worker.received.digest,
            "client": job["client"],
            "row": job["row"],
        }
        return meta, {"numbers": numbers}


def cohorts(repeats, say):
    """Print the cost of a client in small and in large cohorts.

    A round's seconds are fixed ones and those of each client. The cost of a further client is
    measured from 10 to 100 and from 100 to 1000."""
    with tempfile.TemporaryDirectory() as folder:
        rounds = {cohort: _cohort_rounds(cohort, folder) for cohort in COHORTS}
        seconds = {cohort: [] for cohort in COHORTS}
        # In turn, since a machine's speed changes.
        for _ in range(3 * repeats + 1):
            for cohort, taken in seconds.items():
                round_s = next(rounds[cohort])
                taken.append(round_s)
    # The first of each warms up.
    medians = [statistics.median(taken[1:]) for taken in seconds.values()]
    say(_cohorts_line(*medians))


def _cohorts_line(small_s, middle_s, large_s):
    """The seconds of rounds with each of COHORTS, and the cost of a client by them."""
    first, second, third = COHORTS
    client_s = (middle_s - small_s) / (second - first)
    further_client_s = (large_s - middle_s) / (third - second)
    fixed_s = max(small_s - first * client_s, 0.0)
    ratio = further_client_s / client_s
    share = (large_s - fixed_s) / third / client_s
    share_with_fixed = large_s / third / (small_s / first)
    small_ms = 1e3 * small_s
    middle_ms = 1e3 * middle_s
    large_ms = 1e3 * large_s
    fixed_ms = 1e3 * fixed_s
    client_us = 1e6 * client_s
    further_client_us = 1e6 * further_client_s
    model = OPTIONS["model"]
    return (
        f"a round without training, {model}, cohorts of {COHORTS}: {small_ms:.2f}, "
        f"{middle_ms:.2f} and {large_ms:.2f} ms, of these {fixed_ms:.2f} whatever the cohort; "
        f"a client more takes {client_us:.0f} us up to {second}, {further_client_us:.0f} us "
        f"beyond: ratio {ratio:.2f} (aim 1.1); a client of {third} against one of {first}, "
        f"without the fixed part {share:.2f}, with it {share_with_fixed:.2f}")


def _cohort_rounds(cohort, folder):
    """``_rounds`` of a new run with this cohort."""
    options = OPTIONS | {"cohort": cohort}
    setup = set_up(options, torch.device("cpu"))
    worker = Idle(launch.worker())
    transport = Local(worker)
    run = setup.run._replace(transport=transport)
    transport.share({"kind": "data"}, shared_arrays(setup.data))
    state = initial_state(run, setup.network.first)
    meta, arrays = message(setup, state)
    transport.publish(meta, arrays)
    store = _new_run(folder, cohort)
    return _rounds(run, state, store)


def _rounds(run, state, store):
    """Yield the seconds of whole rounds: exchange, merge, row, checkpoint."""
    for t in itertools.count(1):
        start = time.perf_counter()
        state, row, rows = loop.evaluated_round(run, state, t)
        store.append(row, rows)
        store.save(state, t)
        store.settle()
        yield time.perf_counter() - start
