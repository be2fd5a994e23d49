"""What rank 0 does in a round, each step beside a reference in the same process: a pass over the same bytes, one topk a
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
from fedmpi.plugins.spec import make
from fedmpi.build.federation import shared_arrays
from fedmpi.build.setup import message, set_up
from fedmpi.core import reduce
from fedmpi.run import launch
from fedmpi.server import loop, record
from fedmpi.bench.round import BARE
from fedmpi.methods.contribution.cosine import cosines
from fedmpi.core.layout import ALIGN, Layout, Slot
from fedmpi.core.mask import budgets, draw, positions, swap
from fedmpi.core.parts import Replies, Round, Updates
from fedmpi.methods.tasks.classification import classification
from fedmpi.methods.pruning.rigl import _largest_pruned
from fedmpi.store import RunFile
from fedmpi.transport.local import Local
from fedmpi.core.allocator import keep_freed_memory

CLIENTS, KEPT = 32, 1_100_000
COHORTS = (10, 100, 1000)
SPARSITY = 0.8
PRUNERS = ("static:init=magnitude", "set:every=1", "rigl:every=1", "residual:every=1", "feddst:every=1",
           "adaptive:every=1", "prunefl:every=1")
ASKED = 10               # clients that adaptive ranks, and whose masks feddst unites
OPTIONS = BARE | {"dataset": "synthetic:samples=2000,size=8", "model": "logistic", "clients": 1000, "batch_size": 10,
                  "rounds": 1000, "evaluate_every": 1000}


def measure(folder, repeats, say):
    """Print every step beside its reference; returns the exit code."""
    torch.set_num_threads(1)
    keep_freed_memory()                             # as rank 0 does
    for part in (_merging, _pruning, partial(_writing, folder), _cohorts):
        part(repeats, say)
    return 0


def side_by_side(ours, reference, repeats):
    """``(seconds of ours, seconds of the reference, ratio)``: medians of ``repeats``, in turn, after one of each."""
    took = []
    for _ in range(repeats + 1):
        for what in (ours, reference):
            start = time.perf_counter()
            what()
            took.append(time.perf_counter() - start)
    a, b = took[2::2], took[3::2]
    return statistics.median(a), statistics.median(b), statistics.median(x / y for x, y in zip(a, b))


def _told(say, what, found, reference):
    ours, theirs, ratio = found
    say(f"{what}: {1e3 * ours:.2f} ms against {1e3 * theirs:.2f} ms of {reference}: ratio {ratio:.2f}")


def _merging(repeats, say):
    gen = torch.Generator().manual_seed(0)
    U, weights = torch.randn(CLIENTS, KEPT, generator=gen), torch.full((CLIENTS,), 1 / CLIENTS, dtype=torch.float64)
    updates = Updates(U, None, torch.arange(KEPT, dtype=torch.int32), weights, KEPT)
    long = updates._replace(U=U * torch.ones(CLIENTS, 1).index_fill_(0, torch.tensor([3, 9, 20]), 10.0))
    B = torch.rand(CLIENTS, KEPT, generator=gen) < 0.7
    held = updates._replace(U=U * B, B=B)

    def reading_both():
        return U.numpy().max(), B.view(torch.uint8).numpy().max()

    say(f"{CLIENTS} clients, {KEPT:,} kept values: {U.numel() * 4 / 1e6:.0f} MB")
    reading = "a pass over them (max)"
    for what, ours in (("mean", partial(reduce.mean, updates, weights)),
                       ("mean, none to be clipped", partial(reduce.mean, updates, weights, 0.1, 3.0)),
                       ("mean, 3 clipped", partial(reduce.mean, long, weights, 0.1, 3.0)),
                       ("mean under own masks", partial(reduce.mean, held, weights, 0.1))):
        _told(say, what, side_by_side(ours, U.numpy().max, repeats), reading)
    _told(say, "mean under own masks", side_by_side(partial(reduce.mean, held, weights, 0.1), reading_both, repeats),
          "a pass over them and the masks (max)")
    score = partial(cosines, updates, weights)
    _told(say, "cosines", side_by_side(score, U.numpy().max, repeats), reading)
    _told(say, "cosines", side_by_side(score, lambda: U @ U.T, repeats), "the Gram product U U'")
    _told(say, "cosines", side_by_side(score, lambda: F.cosine_similarity(U, (weights.float() @ U)[None]), repeats),
          "torch's cosine_similarity with the mean")


def resnet18():
    """The ``Layout`` of the convolutions and the classifier of ResNet-18, 11,678,912 weights."""
    shapes, width = [(64, 3, 7, 7)], 64
    for channels in (64, 128, 256, 512):
        shapes += [(channels, width, 3, 3)] + 3 * [(channels, channels, 3, 3)]
        shapes += [(channels, width, 1, 1)] * (channels != width)
        width = channels
    return layout_of(shapes + [(1000, 512)])


def layout_of(shapes):
    """A ``Layout`` of weights only."""
    slots, end = [], 0
    for number, shape in enumerate(shapes):
        size = int(np.prod(shape))
        slots.append(Slot(f"layer{number}", shape, end, size))
        end += -(-size // ALIGN) * ALIGN
    return Layout(tuple(slots), (), (), end, end, end)


def _pruning(repeats, say):
    for layout in (resnet18(), layout_of([(3000, 2000), (2500, 2000), (200, 1000)])):
        x = torch.randn(layout.Q, generator=torch.Generator().manual_seed(0)) * layout.real
        kept = budgets(layout, SPARSITY)

        def topks():
            return [torch.topk(x[slot.span].abs(), k, sorted=False) for slot, k in zip(layout.weights, kept)]

        say(f"{len(layout.weights)} layers, {layout.num_weights:,} weights, sparsity {SPARSITY}")
        for spec in PRUNERS:
            found = side_by_side(_evolving(spec, layout, x), topks, repeats)
            _told(say, spec.partition(":")[0], found, "one topk a layer")


def _evolving(spec, layout, x):
    """A function that prunes and grows once; where the mask never moves, the one that makes it."""
    pruner = make(catalog.PRUNERS, spec)
    state, mask = pruner.init(layout, x, Round(0, 100), np.random.default_rng(0))
    if spec.startswith("static"):
        return lambda: pruner.init(layout, x, Round(0, 100), np.random.default_rng(0))
    gen, numbers = np.random.default_rng(1), torch.arange(1.0, 1 + ASKED, dtype=torch.float64)
    updates, one = _own_masks(layout, mask, gen), torch.ones(1, dtype=torch.float64)
    replies = Replies(updates, one, [_report(spec, layout, mask)], layout, (1.0,) * len(layout.weights),
                      torch.arange(ASKED), numbers, numbers)
    vector = x if pruner.residuals else torch.where(mask, x, 0.0).index_fill_(0, updates.support.long(), 0.01)
    return lambda: pruner.evolve(state, mask, vector, replies, Round(1, 100), gen)


def _report(spec, layout, mask):
    """What one client says of its gradients, as the pruner wants it."""
    gradient = torch.randn(layout.Q, generator=torch.Generator().manual_seed(1))
    if spec.startswith("rigl"):
        return _largest_pruned(layout, mask, gradient, [int(0.3 * k) for k in layout.kept(mask)], 2.0)
    return {"squares": gradient.square()[layout.full_mask()].numpy(), "others": np.array([1.0, 100.0])}


def _own_masks(layout, mask, gen):
    """``Updates`` without values of clients that have each moved 5 % of the weights of ``mask``."""
    moves = [int(0.05 * k) for k in layout.kept(mask)]
    masks = [swap(layout, mask, moves, torch.randn(layout.Q), lambda slot, k: draw(~mask[slot.span], k, gen))
             for _ in range(ASKED)]
    support = positions(torch.stack(masks).any(dim=0)).int()
    B = torch.stack([each[support] for each in masks])
    return Updates(torch.zeros(ASKED, 0), B, support, torch.ones(ASKED, dtype=torch.float64), len(support))


def _writing(folder, repeats, say):
    rounds, clients = record.round_columns(False, 1, ["size"], classification()), record.client_columns(["size"])
    row = {c.name: [0] * c.width if c.width else 0 for c in rounds}
    rows = {c.name: np.zeros(10, c.dtype) for c in clients}
    with tempfile.TemporaryDirectory(dir=folder) as here:
        store = RunFile.create(os.path.join(here, "run.h5"), {}, rounds, clients, {}, ([0], []))
        say(f"a row of {len(rounds)} columns and 10 rows of {len(clients)}, in {folder or tempfile.gettempdir()}")
        found = side_by_side(lambda: store.append(row, rows), partial(_plain, here, bytes(8192), False), 10 * repeats)
        _told(say, "append", found, "a plain write of 8 KiB")
        for what, values in (("small checkpoint", 7850), ("large checkpoint", 11_200_000)):
            state = {"x": torch.randn(values), "mask": torch.ones(values, dtype=torch.bool)}
            content = b"".join(tensor.numpy().tobytes() for tensor in state.values())

            def save():
                store.save(state, 1)
                store.settle()

            _told(say, f"{what}, {len(content) / 1e6:.2f} MB, until it is on the disk",
                  side_by_side(save, partial(_plain, here, content, True), repeats), "a plain write and fsync")


def _plain(folder, content, sync):
    with open(os.path.join(folder, "plain"), "wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


class Idle:
    """A worker whose clients do not train: their updates are zeros."""

    def __init__(self, worker):
        self.worker, self.receive, self.total = worker, worker.receive, worker.total

    def run(self, job, arrays):
        numbers = np.array([2.0, 1.0, 2.0, 0, 0, 0, 4.0 * self.worker.layout.P, 1.0, 1.0, 1.0])
        meta = {"kind": "update", "t": self.worker.t, "support": self.worker.received.digest, "client": job["client"],
                "row": job["row"]}
        return meta, {"numbers": numbers}


def _cohorts(repeats, say):
    """A round's seconds are fixed ones and those of each client: what a client more costs from 10 to 100, and from 100
    to 1000, tells whether a client of a large cohort costs more."""
    found = {}
    with tempfile.TemporaryDirectory() as here:
        for cohort in COHORTS:
            options = OPTIONS | {"cohort": cohort}
            setup = set_up(options, torch.device("cpu"))
            transport = Local(Idle(launch.worker()))
            fed = setup.fed._replace(transport=transport)
            transport.share({"kind": "data"}, shared_arrays(setup.data))
            state = loop.start(fed, setup.network.first)
            transport.publish(*message(setup, state))
            rounds = record.round_columns(False, 1, ["size"], classification())
            store = RunFile.create(os.path.join(here, f"{cohort}.h5"), {}, rounds,
                                   record.client_columns(["size"]), {}, ([0], []))
            found[cohort] = _rounds(fed, state, store)
        took = {cohort: [] for cohort in COHORTS}
        for _ in range(3 * repeats + 1):                   # in turn, since a machine's speed changes
            for cohort, rounds in found.items():
                took[cohort].append(next(rounds))
    small, middle, large = (statistics.median(each[1:]) for each in took.values())
    few, many = (middle - small) / (COHORTS[1] - COHORTS[0]), (large - middle) / (COHORTS[2] - COHORTS[1])
    fixed = max(small - COHORTS[0] * few, 0.0)
    say(f"a round without training, {OPTIONS['model']}, cohorts of {COHORTS}: {1e3 * small:.2f}, {1e3 * middle:.2f} "
        f"and {1e3 * large:.2f} ms, of these {1e3 * fixed:.2f} whatever the cohort; a client more takes "
        f"{1e6 * few:.0f} us up to {COHORTS[1]}, {1e6 * many:.0f} us beyond: ratio {many / few:.2f} (aim 1.1); a "
        f"client of {COHORTS[2]} against one of {COHORTS[0]}, without the fixed part "
        f"{(large - fixed) / COHORTS[2] / few:.2f}, with it {large / COHORTS[2] / (small / COHORTS[0]):.2f}")


def _rounds(fed, state, store):
    """The seconds of whole rounds, one after the other: exchange, merge, row, checkpoint."""
    for t in itertools.count(1):
        start = time.perf_counter()
        state, row, rows = loop.play_round(fed, state, t)
        store.append(row, rows)
        store.save(state, t)
        store.settle()
        yield time.perf_counter() - start
