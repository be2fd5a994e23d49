"""Rank 0's work in a round, each step beside a reference in the same process: a pass over the same bytes, one topk a
layer, a plain write. ``fedmpi bench server``; one thread, no MPI.
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
from fedmpi.methods.pruning.rigl import _largest_pruned
from fedmpi.methods.tasks.classification import classification
from fedmpi.plugins.spec import make
from fedmpi.run import launch
from fedmpi.server import loop, record
from fedmpi.store import RunFile
from fedmpi.transport.local import Local

CLIENTS, KEPT = 32, 1_100_000
COHORTS = (10, 100, 1000)
SPARSITY = 0.8
PRUNERS = ("static:init=magnitude", "set:every=1", "rigl:every=1", "residual:every=1", "feddst:every=1",
           "adaptive:every=1", "prunefl:every=1")
# Clients ranked by adaptive, and with masks united by feddst.
ASKED = 10
OPTIONS = BARE | {"dataset": "synthetic:samples=2000,size=8", "model": "logistic", "clients": 1000, "batch_size": 10,
                  "rounds": 1000, "evaluate_every": 1000}


def measure(folder, repeats, say):
    """Print every step beside its reference; returns the exit code."""
    torch.set_num_threads(1)
    # As rank 0 does.
    keep_freed_memory()
    for part in (_merging, _pruning, partial(_writing, folder), _cohorts):
        part(repeats, say)
    return 0


def side_by_side(ours, reference, repeats):
    """``(seconds of ours, seconds of the reference, ratio)``: medians of ``repeats``, in turn, after one of each."""
    seconds = {ours: [], reference: []}
    for _ in range(repeats + 1):
        for work, taken in seconds.items():
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    own = seconds[ours][1:]
    other = seconds[reference][1:]
    return statistics.median(own), statistics.median(other), statistics.median(ratios(own, other))


def _print(say, name, medians, reference):
    """Print one step's line, from the answer of ``side_by_side``."""
    own_s, reference_s, ratio = medians
    own_ms = 1e3 * own_s
    reference_ms = 1e3 * reference_s
    say(f"{name}: {own_ms:.2f} ms against {reference_ms:.2f} ms of {reference}: ratio {ratio:.2f}")


def _merging(repeats, say):
    gen = torch.Generator().manual_seed(0)
    U = torch.randn(CLIENTS, KEPT, generator=gen)
    weights = torch.full((CLIENTS,), 1 / CLIENTS, dtype=torch.float64)
    updates = Updates(U, None, torch.arange(KEPT, dtype=torch.int32), weights, KEPT)
    # Three clients' updates are ten times longer than the others.
    lengths = torch.ones(CLIENTS, 1).index_fill_(0, torch.tensor([3, 9, 20]), 10.0)
    long = updates._replace(U=U * lengths)
    B = torch.rand(CLIENTS, KEPT, generator=gen) < 0.7
    masked = updates._replace(U=U * B, B=B)
    num_bytes = 4 * U.numel()
    say(f"{CLIENTS} clients, {KEPT:,} kept values: {num_bytes / 1e6:.0f} MB")

    def compare(name, ours, reference, text):
        _print(say, name, side_by_side(ours, reference, repeats), text)

    def read():
        return U.numpy().max()

    def read_both():
        return U.numpy().max(), B.view(torch.uint8).numpy().max()

    reading = "a pass over them (max)"
    masked_mean = partial(reduce.mean, masked, weights, 0.1)
    compare("mean", partial(reduce.mean, updates, weights), read, reading)
    compare("mean, none to be clipped", partial(reduce.mean, updates, weights, 0.1, 3.0), read, reading)
    compare("mean, 3 clipped", partial(reduce.mean, long, weights, 0.1, 3.0), read, reading)
    compare("mean under own masks", masked_mean, read, reading)
    compare("mean under own masks", masked_mean, read_both, "a pass over them and the masks (max)")
    score = partial(cosines, updates, weights)
    compare("cosines", score, read, reading)
    compare("cosines", score, lambda: U @ U.T, "the Gram product U U'")
    compare("cosines", score, lambda: F.cosine_similarity(U, (weights.float() @ U)[None]),
            "torch's cosine_similarity with the mean")


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
        end += -(-size // ALIGN) * ALIGN
    return Layout(tuple(slots), (), (), end, end, end)


def _pruning(repeats, say):
    fully_connected = layout_of([(3000, 2000), (2500, 2000), (200, 1000)])
    for layout in (resnet18(), fully_connected):
        gen = torch.Generator().manual_seed(0)
        x = torch.randn(layout.Q, generator=gen) * layout.real
        topks = partial(_topks, layout, x, budgets(layout, SPARSITY))
        say(f"{len(layout.weights)} layers, {layout.num_weights:,} weights, sparsity {SPARSITY}")
        for spec in PRUNERS:
            medians = side_by_side(_evolving(spec, layout, x), topks, repeats)
            _print(say, spec.partition(":")[0], medians, "one topk a layer")


def _topks(layout, x, kept):
    largest = []
    for slot, k in zip(layout.weights, kept):
        magnitudes = x[slot.span].abs()
        largest.append(torch.topk(magnitudes, k, sorted=False))
    return largest


def _evolving(spec, layout, x):
    """A function pruning and growing once; for a pruner with a fixed mask, the function making the mask."""
    pruner = make(catalog.PRUNERS, spec)
    if spec.startswith("static"):
        return lambda: pruner.init(layout, x, Round(0, 100), np.random.default_rng(0))
    state, mask = pruner.init(layout, x, Round(0, 100), np.random.default_rng(0))
    gen = np.random.default_rng(1)
    updates = _own_masks(layout, mask, gen)
    replies = _replies(spec, layout, mask, updates)
    vector = x
    if not pruner.keeps_pruned_values:
        vector = torch.where(mask, x, 0.0).index_fill_(0, updates.support.long(), 0.01)
    return lambda: pruner.evolve(state, mask, vector, replies, Round(1, 100), gen)


def _replies(spec, layout, mask, updates):
    numbers = torch.arange(1.0, 1 + ASKED, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    reports = [_report(spec, layout, mask)]
    costs = (1.0,) * len(layout.weights)
    return Replies(updates, one, reports, layout, costs, torch.arange(ASKED), numbers, numbers)


def _report(spec, layout, mask):
    """One client's report on its gradients, in the pruner's form."""
    gradient = torch.randn(layout.Q, generator=torch.Generator().manual_seed(1))
    if spec.startswith("rigl"):
        moves = [int(0.3 * k) for k in layout.kept(mask)]
        return _largest_pruned(layout, mask, gradient, moves, 2.0)
    squares = gradient.square()[layout.full_mask()]
    return {"squares": squares.numpy(), "others": np.array([1.0, 100.0])}


def _own_masks(layout, mask, gen):
    """``Updates`` without values, of ASKED clients; each has moved 5 % of the weights of ``mask``."""
    moves = [int(0.05 * k) for k in layout.kept(mask)]

    def grow(slot, k):
        return draw(~mask[slot.span], k, gen)

    masks = []
    for _ in range(ASKED):
        scores = torch.randn(layout.Q)
        masks.append(swap(layout, mask, moves, scores, grow))
    union = torch.stack(masks).any(dim=0)
    support = positions(union).int()
    B = torch.stack([own[support] for own in masks])
    no_values = torch.zeros(ASKED, 0)
    weights = torch.ones(ASKED, dtype=torch.float64)
    return Updates(no_values, B, support, weights, len(support))


def _writing(folder, repeats, say):
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = os.path.join(scratch, "run.h5")
        store = RunFile.create(path, {}, _round_columns(), _client_columns(), {}, ([0], []))
        _appending(store, scratch, folder, repeats, say)
        for name, values in (("small checkpoint", 7850), ("large checkpoint", 11_200_000)):
            _saving(store, scratch, name, values, repeats, say)


def _round_columns():
    return record.round_columns(False, 1, ["size"], classification())


def _client_columns():
    return record.client_columns(["size"])


def _appending(store, scratch, folder, repeats, say):
    rounds = _round_columns()
    clients = _client_columns()
    row = {}
    for column in rounds:
        row[column.name] = [0] * column.width if column.width else 0
    rows = {column.name: np.zeros(10, column.dtype) for column in clients}
    place = folder or tempfile.gettempdir()
    say(f"a row of {len(rounds)} columns and 10 rows of {len(clients)}, in {place}")
    reference = partial(_plain, scratch, bytes(8192), False)
    medians = side_by_side(lambda: store.append(row, rows), reference, 10 * repeats)
    _print(say, "append", medians, "a plain write of 8 KiB")


def _saving(store, scratch, name, values, repeats, say):
    """Print the line of a checkpoint of so many ``values`` and their mask."""
    state = {"x": torch.randn(values), "mask": torch.ones(values, dtype=torch.bool)}
    parts = [tensor.numpy().tobytes() for tensor in state.values()]
    content = b"".join(parts)

    def save():
        store.save(state, 1)
        store.settle()

    reference = partial(_plain, scratch, content, True)
    medians = side_by_side(save, reference, repeats)
    megabytes = len(content) / 1e6
    _print(say, f"{name}, {megabytes:.2f} MB, until it is on the disk", medians, "a plain write and fsync")


def _plain(folder, content, sync):
    with open(os.path.join(folder, "plain"), "wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


class Idle:
    """A worker with idle clients: their updates are zeros."""

    def __init__(self, worker):
        self.worker = worker
        self.receive = worker.receive
        self.total = worker.total

    def run(self, job, arrays):
        model_bytes = 4.0 * self.worker.layout.P
        numbers = np.array([2.0, 1.0, 2.0, 0, 0, 0, model_bytes, 1.0, 1.0, 1.0])
        meta = {"kind": "update", "t": self.worker.t, "support": self.worker.received.digest, "client": job["client"],
                "row": job["row"]}
        return meta, {"numbers": numbers}


def _cohorts(repeats, say):
    """Prints whether a client of a large cohort costs more.

    A round's seconds are fixed ones and those of each client. The cost of a further client is measured from 10 to 100
    and from 100 to 1000."""
    with tempfile.TemporaryDirectory() as folder:
        rounds = {cohort: _cohort_rounds(cohort, folder) for cohort in COHORTS}
        seconds = {cohort: [] for cohort in COHORTS}
        # In turn, since a machine's speed changes.
        for _ in range(3 * repeats + 1):
            for cohort, taken in seconds.items():
                taken.append(next(rounds[cohort]))
    small, middle, large = (statistics.median(taken[1:]) for taken in seconds.values())
    first, second, third = COHORTS
    client_s = (middle - small) / (second - first)
    further_client_s = (large - middle) / (third - second)
    fixed = max(small - first * client_s, 0.0)
    share = (large - fixed) / third / client_s
    share_with_fixed = large / third / (small / first)
    say(f"a round without training, {OPTIONS['model']}, cohorts of {COHORTS}: {1e3 * small:.2f}, {1e3 * middle:.2f} "
        f"and {1e3 * large:.2f} ms, of these {1e3 * fixed:.2f} whatever the cohort; a client more takes "
        f"{1e6 * client_s:.0f} us up to {second}, {1e6 * further_client_s:.0f} us beyond: ratio "
        f"{further_client_s / client_s:.2f} (aim 1.1); a "
        f"client of {third} against one of {first}, without the fixed part "
        f"{share:.2f}, with it {share_with_fixed:.2f}")


def _cohort_rounds(cohort, folder):
    """``_rounds`` of a new run with this cohort."""
    setup = set_up(OPTIONS | {"cohort": cohort}, torch.device("cpu"))
    transport = Local(Idle(launch.worker()))
    run = setup.run._replace(transport=transport)
    transport.share({"kind": "data"}, shared_arrays(setup.data))
    state = loop.start(run, setup.network.first)
    transport.publish(*message(setup, state))
    path = os.path.join(folder, f"{cohort}.h5")
    store = RunFile.create(path, {}, _round_columns(), _client_columns(), {}, ([0], []))
    return _rounds(run, state, store)


def _rounds(run, state, store):
    """Yields the seconds of whole rounds: exchange, merge, row, checkpoint."""
    for t in itertools.count(1):
        start = time.perf_counter()
        state, row, rows = loop.evaluated_round(run, state, t)
        store.append(row, rows)
        store.save(state, t)
        store.settle()
        yield time.perf_counter() - start
