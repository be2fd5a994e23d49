"""What a run will take, by playing a little of it: ``fedmpi train --dry-run`` and ``fedmpi sbatch --measure``.

Two rounds are played in memory, in this process, of as much of the run as a few seconds allow; no file is written.
Bytes are those of messages that were encoded then. What was played of fewer clients or samples is scaled, and said to
be.
"""

import contextlib
import math
import os
import signal
import time
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.build import footprint
from fedmpi.build.federation import cut, shared_arrays, without_pixels
from fedmpi.build.needs import gpu_needs, host_need
from fedmpi.build.population import dealt
from fedmpi.build.server import least
from fedmpi.build.setup import message
from fedmpi.core.layout import described
from fedmpi.core.parts import Sampler
from fedmpi.core.wide import labelled
from fedmpi.methods.datasets.dataset import inputs_text

LIMIT_S = 10.0                # for all that is played but the smallest try, which is always finished
BATCHES = 4                   # of a client whose samples are cut
FEW = 2                       # clients of the smallest try


class Played(NamedTuple):
    """The second of two rounds, without what happens only once, and how it was brought about."""

    row: dict                     # of /rounds
    first: dict                   # that of the first round, in which masks travel whole
    clients: int                  # asked in a round
    samples: float                # of these, the mean
    cut: bool                     # whether their samples were cut
    trained_s: float              # that they trained, as their workers saw it


class Plan(NamedTuple):
    """What one round of the whole run takes; where ``exact``, all of it was played."""

    asked: int                    # clients a round
    round_s: float                # in one process
    shared_s: float               # the part of it that workers share
    rank_bytes: float             # resident memory of this process
    down_bytes: float             # of the second round
    up_bytes: float
    first_down_bytes: float
    dense_bytes: float
    flops: dict                   # by convention
    kept: int
    played: Played
    exact: bool


class _Over(BaseException):
    """The seconds are over. Not an Exception, as a client's exceptions are answers of the client."""


def played(options, say):
    """``(Setup, Plan)`` of the run that ``options`` describe. UserError for what train would refuse; ``say(line)``
    takes what --together 0 has measured."""
    setup = set_up(options, say)
    begin, tries = time.monotonic(), _tries(setup)
    found = None
    for number, (clients, few_samples) in enumerate(tries):
        left = LIMIT_S - (time.monotonic() - begin) if number else 0
        if number and left <= 0:
            break
        with contextlib.suppress(_Over), _limited(left):
            found = _play(setup, clients, few_samples)
    return setup, scaled(found, setup.data, setup.fed)


def set_up(options, say):
    """The ``Setup`` of the run, checked as ``train`` checks it."""
    from fedmpi.run.devices import on_device
    from fedmpi.run.session import prepared
    return prepared(on_device(options), 0, say)


def _tries(setup):
    """``[(clients a round, whether samples are cut)]``, from the least to the whole run."""
    parts, cohort = setup.parts, setup.fed.cohort
    everybody = parts.weigher.opening or parts.aggregation.buffer or parts.sampler.candidates
    few = cohort if everybody else min(FEW, cohort)
    # Fewer samples would not take fewer local steps.
    many = int(setup.data.sizes.max()) > BATCHES * setup.options["batch_size"]
    cuts = many and not setup.options["local_steps"]
    return list(dict.fromkeys([(few, cuts), (cohort, cuts), (cohort, False)]))


def _play(setup, clients, few_samples):
    """Two rounds, in memory."""
    from fedmpi.server import record, loop
    from fedmpi.run.launch import worker
    from fedmpi.store import MemoryStore
    from fedmpi.transport.local import Local
    data, options = setup.data, setup.options
    if few_samples:
        data = cut(data, BATCHES * options["batch_size"])
    fed = _short(setup, data, clients)._replace(transport=Local(worker(setup.parts)))
    store = MemoryStore({}, *record.columns(fed), {}, (data.offsets, data.indices), record.own_columns(fed))
    state = loop.start(fed, setup.network.first)
    fed.transport.share({"kind": "data", "goes_on": ""}, shared_arrays(data))
    sent = setup._replace(data=without_pixels(data), fed=fed)
    fed.transport.publish(*message(sent, state))
    loop.simulate(fed, state, store, 1, 2)
    rows = store.run()
    first, last = ({name: column[t] for name, column in rows.rounds.items()} for t in (0, 1))
    of_last = rows.clients["round"] == 2
    return Played(last, first, int(last["asked"]), float(rows.clients["samples"][of_last].mean()), few_samples,
                  float(np.nansum(rows.clients["train_s"][of_last])))


def _short(setup, data, clients):
    """The ``Fed`` of two rounds of so many clients, each of which is evaluated."""
    options, fed = setup.options, setup.fed
    if clients < fed.cohort == len(data.sizes):
        # The same clients each round, as when everybody takes part.
        fed = fed._replace(sampler=Sampler(_first))
    return fed._replace(cohort=clients, rounds=max(2, options["rounds"]), every=1,
                        own_tests=fed.own_tests and fed.own_tests._replace(every=1),
                        sizes=fed.sizes.new_tensor(data.sizes.astype(float)),
                        least=least(options, setup.parts, data, fed.batch_norm))


def _first(gen, count, known):
    """The first clients that are there."""
    return torch.nonzero(known.available).flatten()[:count]


@contextlib.contextmanager
def _limited(seconds):
    """Where the block takes longer, it is left by _Over; 0: no limit."""
    def over(*_):
        raise _Over

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def scaled(found, data, fed):
    """The ``Plan`` of the whole run: bytes and the server's work on updates by clients, training also by samples."""
    row, first = found.row, found.first
    asked = fed.aggregation.buffer or math.ceil(fed.cohort * (1 + fed.aggregation.over))
    asked = max(min(asked, len(data.sizes)), fed.sampler.candidates)
    by_clients = asked / found.clients
    by_samples = by_clients * float(data.sizes.mean()) / found.samples if found.cut else by_clients
    train_s = max(row["train_s"], found.trained_s)    # where aggregation is asynchronous round 1 has done some of it
    training, judging = train_s * by_samples, row["contribution_s"] * by_clients
    rest = row["round_s"] - row["train_s"] - row["contribution_s"] + row["evaluate_s"] / fed.every
    testing = row["own_s"] / fed.own_tests.every if fed.own_tests is not None else 0.0
    shared = training + judging + testing
    return Plan(asked, shared + rest, shared, float(row["rss_bytes"]),
                row["down_bytes"] * by_clients, row["up_bytes"] * by_clients, first["down_bytes"] * by_clients,
                row["dense_bytes"] * by_clients,
                {name: row[f"flops_{name}"] * by_samples for name in ("rigl", "prunefl", "dense")},
                int(row["kept"]), found, not found.cut and by_clients == 1)


def told(setup, plan, ranks, out, width=None):
    """Lines, at most ``width`` wide, about a run on ``ranks`` ranks that would write ``out``."""
    options, data, fed = setup.options, setup.data, setup.fed
    layout, N, T = fed.layout, len(data.sizes), options["rounds"]
    workers = max(ranks - 1, 1)
    cores = len(os.sched_getaffinity(0))
    at_once = min(workers, plan.asked)
    need = host_need(setup, ranks, first=True)
    each = plan.round_s - plan.shared_s * (1 - math.ceil(plan.asked / at_once) / plan.asked)
    slow = max(1.0, min(at_once, ranks) / cores)
    known = "played whole" if plan.exact else _known(plan, fed)
    rows = [
        ("clients", f"{N} with {int(data.sizes.min())} to {int(data.sizes.max())} samples, {plan.asked} asked a round, "
                    f"{T} round{'s' * (T > 1)}"),
        ("data", f"{options['dataset']}: {len(data.indices):,} training, {len(data.validation):,} validation, "
                 + f"{len(data.server):,} of the server's own, " * bool(len(data.server))
                 + f"{len(data.dataset.y_test):,} test samples"),
        *_own_tests(data, fed),
        ("dealt out", dealt(options, data)),
        *(line.partition(": ")[::2] for line in data.dataset.told),
        ("inputs", inputs_text(data.dataset)),
        ("method", f"strategy {options['strategy']}, pruner {options['pruner']}, contribution "
                   f"{options['contribution']}, weighting {options['weighting']}, codec {options['codec']}"),
        ("model", f"{options['model']}: {described(layout)}; of {layout.num_weights:,} prunable weights "
                  f"{plan.kept:,} kept, sparsity {1 - plan.kept / layout.num_weights:.3f}"),
        ("ranks", f"{ranks}: {_who(ranks, workers, plan.asked)}; {cores} core{'s' * (cores > 1)} here"),
        ("bytes a round", f"{_bytes(plan.down_bytes)} down ({_bytes(plan.first_down_bytes)} in round 1), "
                          f"{_bytes(plan.up_bytes)} up, of messages encoded here; "
                          f"{_bytes(plan.dense_bytes)} would be dense float32 both ways"),
        ("memory", f"about {_bytes(footprint.RANK_BYTES + need / ranks)} a rank, "
                   f"{_bytes(ranks * footprint.RANK_BYTES + need)} in all, estimated; this process took "
                   f"{_bytes(plan.rank_bytes)}"),
        *_gpus(setup, at_once),
        ("FLOPs a round", f"{plan.flops['rigl']:.3g} by RigL's convention, {plan.flops['prunefl']:.3g} by PruneFL's, "
                          f"{plan.flops['dense']:.3g} dense"),
        ("time a round", f"about {_seconds(each * slow)}" + f" on {ranks} ranks" * (ranks > 1)
                         + f"; {_seconds(plan.round_s)} in one process, of which {_seconds(plan.shared_s)} are shared "
                         "by workers"),
        ("time in all", f"about {_seconds(each * slow * T)} for {T} rounds, without the start"),
        ("timed", known + "; in round 2, which moved the mask; rounds without a move take less" * (
            bool(plan.played.row["mask_changed"]))),
        ("writes", f"{out}, and checkpoints beside it"),
    ]
    return labelled(rows, width)


def _own_tests(data, fed):
    """The row about clients' own test parts, where they have some."""
    if fed.own_tests is None:
        return []
    tests, every = fed.own_tests, "every round"
    if tests.every > 1:
        every = f"every {tests.every} rounds"
    return [("own tests", f"{len(tests.clients)} clients on {len(data.held_out.indices):,} samples of their own, "
                          f"{every}")]


def _gpus(setup, at_once):
    """The row about GPUs, where any is used."""
    options = setup.options
    used = [name for name in ("device", "server_device") if options[name] == "cuda"]
    if not used:
        return []
    count, (worker, server) = torch.cuda.device_count(), gpu_needs(options, setup.data, setup.network)
    needs = {"device": f"a worker takes about {footprint.told(worker)}",
             "server_device": f"the server about {footprint.told(server)}"}
    share = math.ceil(at_once / count)
    return [("GPUs", f"{count}, the first {torch.cuda.get_device_name(0)}; " + "; ".join(needs[name] for name in used)
             + f"; up to {share} workers share one and are slower together than the times here say" * (
                 share > 1 and options["device"] == "cuda"))]


def _known(plan, fed):
    """How the figures were come by, where not all was played."""
    played = plan.played
    cut = f" of {played.samples:.0f} samples each" if played.cut else ""
    return (f"two rounds of {played.clients} of {plan.asked} clients{cut}, scaled by clients and samples; the whole "
            f"would have taken more than {LIMIT_S:.0f} s" + (
                "; scores of contributions may grow faster than that" if played.clients < plan.asked
                and any(part.validated for part in fed.contributions.values()) else ""))


def _who(ranks, workers, asked):
    if ranks == 1:
        return f"this process does all; mpirun -n {asked + 1} would be a worker a client"
    return (f"{workers} worker{'s' * (workers > 1)}, {math.ceil(asked / workers)} client"
            f"{'s' * (asked > workers)} each at most" + f"; {workers - asked} will lie idle" * (workers > asked))


def _bytes(number):
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def _seconds(number):
    for unit, size in (("h", 3600), ("min", 60)):
        if number >= 2 * size:
            return f"{number / size:.2g} {unit}"
    return f"{number:.2g} s" if number >= 0.1 else f"{1000 * number:.2g} ms"
