"""The cost of a run, by playing a little of it: for ``--dry-run`` and ``sbatch --measure``.

This process plays two rounds in memory, with as many clients and samples as a few seconds allow; no
file is written. Bytes are counted on encoded messages. Figures of fewer clients or samples are
scaled, and the plan says so.
"""

import contextlib
import math
import os
import signal
import socket
import time
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.build import footprint, groups
from fedmpi.build.federation import cut, samples_text, without_pixels
from fedmpi.build.needs import gpu_needs, host_fits, host_need
from fedmpi.build.population import dealt
from fedmpi.build.server import min_samples_seen
from fedmpi.build.setup import message, shared_arrays
from fedmpi.core.words import plural
from fedmpi.core.layout import described
from fedmpi.core.parts import Sampler
from fedmpi.core.wide import labelled
from fedmpi.methods.datasets.dataset import inputs_text

# Seconds after which no further try begins or goes on; the smallest one is always finished.
LIMIT_S = 10.0
# A client keeps so many batches where its samples are cut.
BATCHES = 4
# Clients of the smallest try.
FEW = 2


class TwoRounds(NamedTuple):
    """Two rounds of a part of the run.

    Its figures are those of the second, as some things happen only in the first.
    """

    # Of /rounds, round 2.
    row: dict
    # Of /rounds, round 1, in which masks travel whole.
    first: dict
    # Asked in a round.
    clients: int
    # The mean of a client's samples.
    samples: float
    # Whether clients kept only some of their samples.
    cut: bool
    # Of all clients, as measured by the workers.
    trained_s: float


class Plan(NamedTuple):
    """The cost of one round of the whole run; all of it was played if ``exact``."""

    # Clients a round.
    asked: int
    # In one process.
    round_s: float
    # The part of round_s shared by workers.
    shared_s: float
    # Resident memory of this process.
    rank_bytes: float
    # Of the second round.
    down_bytes: float
    up_bytes: float
    first_down_bytes: float
    dense_bytes: float
    # By convention.
    flops: dict
    kept: int
    played: TwoRounds
    exact: bool


class _Over(BaseException):
    """The seconds are over. No Exception, because a client's exceptions count as its answers."""


def played(options, say, ranks=1):
    """``(Setup, Plan)`` of the run with these ``options``, on so many ranks of this machine.

    UserError if train would refuse the options, and if the memory here is too small for vectors of
    the model. ``say(line)`` takes the timing of --together 0, and a warning about memory.
    """
    setup = set_up(options, say)
    _check_memory(setup, ranks, say)
    end = time.monotonic() + LIMIT_S
    smallest, *larger = _tries(setup)
    part = _play(setup, *smallest)
    for clients, few_samples in larger:
        left = end - time.monotonic()
        if left <= 0:
            break
        with contextlib.suppress(_Over), _limited(left):
            part = _play(setup, clients, few_samples)
    return setup, scaled(part, setup.data, setup.run)


def _check_memory(setup, ranks, say):
    """Refuse a run whose ranks will not fit this machine, and warn of one that may not."""
    from fedmpi.transport.place import memory_bytes
    warning = host_fits(setup, ranks, True, memory_bytes(), socket.gethostname())
    if warning:
        say(f"warning: {warning}")


def set_up(options, say):
    """The ``Setup`` of the run, checked as ``train`` checks it."""
    from fedmpi.run.devices import on_device
    from fedmpi.run.session import prepared
    return prepared(on_device(options), 0, say)


# ---------------------------------------------------------------- a part of the run, played


def _tries(setup):
    """``[(clients a round, whether samples are cut)]``, from the least to the whole run."""
    parts, options = setup.parts, setup.options
    cohort = setup.run.cohort
    few = min(FEW, cohort)
    # These parts work only with their number of clients.
    if parts.weigher.opening or parts.timing.buffer or parts.sampler.candidates:
        few = cohort
    largest = int(setup.data.sizes.max())
    few_samples = BATCHES * options["batch_size"]
    cuts = largest > few_samples
    # Local steps do not get fewer with the samples.
    if options["local_steps"]:
        cuts = False
    tries = [(few, cuts), (cohort, cuts), (cohort, False)]
    return list(dict.fromkeys(tries))


def _play(setup, clients, few_samples):
    """The ``TwoRounds`` of two rounds in memory."""
    from fedmpi.run.launch import worker
    from fedmpi.server import loop
    from fedmpi.server.run_state import initial_state
    from fedmpi.transport.local import Local
    data = setup.data
    if few_samples:
        data = cut(data, BATCHES * setup.options["batch_size"])
    run = _short(setup, data, clients)
    run = run._replace(transport=Local(worker(setup.parts)))
    store = _memory_store(data, run)
    state = initial_state(run, setup.network.first)
    arrays = shared_arrays(setup._replace(data=data))
    run.transport.share({"kind": "data", "goes_on": ""}, arrays)
    sent = setup._replace(data=without_pixels(data), run=run)
    run.transport.publish(*message(sent, state))
    loop.simulate(run, state, store, 1, 2)
    return _measured(store.run(), few_samples)


def _memory_store(data, run):
    from fedmpi.server import record
    from fedmpi.store import MemoryStore
    partition = data.offsets, data.indices
    return MemoryStore({}, *record.columns(run), {}, partition, record.own_columns(run))


def _measured(run, few_samples):
    """The ``TwoRounds`` of a run of two rounds."""
    first = _round_row(run, 0)
    last = _round_row(run, 1)
    of_last = run.clients["round"] == 2
    samples = run.clients["samples"][of_last]
    trained_s = run.clients["train_s"][of_last]
    return TwoRounds(
        row=last,
        first=first,
        clients=int(last["asked"]),
        samples=float(samples.mean()),
        cut=few_samples,
        trained_s=float(np.nansum(trained_s)))


def _round_row(run, number):
    return {name: column[number] for name, column in run.rounds.items()}


def _short(setup, data, clients):
    """The ``RunParts`` of two rounds of so many clients, evaluated after each round."""
    options, run = setup.options, setup.run
    if clients < run.cohort == len(data.sizes):
        # Everybody takes part in the whole run, hence here the same clients in each round.
        run = run._replace(sampler=Sampler(_first))
    if run.own_tests:
        run = run._replace(own_tests=run.own_tests._replace(test_every=1))
    return run._replace(
        cohort=clients,
        rounds=max(2, options["rounds"]),
        evaluate_every=1,
        sizes=run.sizes.new_tensor(data.sizes.astype(float)),
        min_samples_seen=min_samples_seen(options, setup.parts, data, run.batch_norm))


def _first(gen, count, records):
    """The first clients that are available."""
    return torch.nonzero(records.available).flatten()[:count]


@contextlib.contextmanager
def _limited(seconds):
    """Leave the block by _Over after so many seconds."""
    def over(*_):
        raise _Over

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def scaled(part, data, run):
    """The ``Plan`` of the whole run, by the ``part (TwoRounds)`` of it.

    Bytes and the server's work on updates grow with the clients, training also with their samples.
    """
    row = part.row
    asked = _asked(data, run)
    by_clients = asked / part.clients
    by_samples = by_clients
    if part.cut:
        samples = float(data.sizes.mean())
        by_samples = by_clients * samples / part.samples
    shared_s = _shared_s(part, run, by_clients, by_samples)
    # NaN if the server has no model to evaluate.
    evaluation_s = np.nan_to_num(row["evaluate_s"]) / run.evaluate_every
    rest_s = row["round_s"] - row["train_s"] - row["contribution_s"] + evaluation_s
    conventions = ("rigl", "prunefl", "dense")
    return Plan(
        asked=asked,
        round_s=shared_s + rest_s,
        shared_s=shared_s,
        rank_bytes=float(row["rss_bytes"]),
        down_bytes=row["down_bytes"] * by_clients,
        up_bytes=row["up_bytes"] * by_clients,
        first_down_bytes=part.first["down_bytes"] * by_clients,
        dense_bytes=row["dense_bytes"] * by_clients,
        flops={name: row[f"flops_{name}"] * by_samples for name in conventions},
        kept=int(row["kept"]),
        played=part,
        exact=not part.cut and by_clients == 1)


def _asked(data, run):
    """The number of clients asked in a round of the whole run."""
    timing = run.timing
    over = math.ceil(run.cohort * (1 + timing.over))
    wanted = timing.buffer or over
    num_clients = len(data.sizes)
    asked = min(wanted, num_clients)
    return max(asked, run.sampler.candidates)


def _shared_s(part, run, by_clients, by_samples):
    """Seconds of a whole round that workers share: training, scores, clients' own tests."""
    row = part.row
    # An asynchronous round 1 has done some of round 2's training.
    train_s = max(row["train_s"], part.trained_s)
    training = train_s * by_samples
    scores = row["contribution_s"] * by_clients
    testing = 0.0
    if run.own_tests is not None:
        testing = row["own_s"] / run.own_tests.test_every
    return training + scores + testing


# ---------------------------------------------------------------- the plan in words


def plan_lines(setup, plan, ranks, out, width=None):
    """Lines, at most ``width`` wide, about a run on ``ranks`` ranks that would write ``out``."""
    size = setup.options["ranks_per_client"]
    at_once = min(max((ranks - 1) // size, 1), plan.asked)
    rows = [
        *_data_rows(setup, plan),
        *_method_rows(setup, plan),
        ("ranks", _ranks_text(ranks, plan.asked, size)),
        *groups.rows(setup, ranks),
        ("bytes a round", _bytes_text(plan)),
        ("memory", _memory_text(setup, plan, ranks)),
        *_gpus(setup, at_once),
        ("FLOPs a round", _flops_text(plan.flops)),
        *_time_rows(setup, plan, ranks, at_once),
        ("writes", f"{out}, and checkpoints beside it"),
    ]
    return labelled(rows, width)


def _data_rows(setup, plan):
    """The rows about clients and their data."""
    options, data = setup.options, setup.data
    remarks = [line.partition(": ")[::2] for line in data.dataset.remarks]
    return [
        ("clients", _clients_text(data, plan.asked, options["rounds"])),
        ("data", _samples_text(options, data)),
        *_own_tests(data, setup.run),
        ("dealt out", dealt(options, data)),
        *remarks,
        ("inputs", inputs_text(data.dataset)),
    ]


def _clients_text(data, asked, T):
    sizes = data.sizes
    N = len(sizes)
    least = int(sizes.min())
    most = int(sizes.max())
    rounds = plural(T, "round")
    return f"{N} with {least} to {most} samples, {asked} asked a round, {rounds}"


def _samples_text(options, data):
    return f"{options['dataset']}: {samples_text(data)}"


def _own_tests(data, run):
    """The row about clients' own test parts, if they have some."""
    if run.own_tests is None:
        return []
    every = run.own_tests.test_every
    period = "every round"
    if every > 1:
        period = f"every {every} rounds"
    clients = len(run.own_tests.clients)
    samples = len(data.held_out.indices)
    who = plural(clients, "client")
    on = plural(samples, "sample")
    return [("own tests", f"{who} on {on} of their own, {period}")]


def _method_rows(setup, plan):
    """The rows about the method and the model."""
    options, layout = setup.options, setup.run.layout
    kinds = ("strategy", "pruner", "contribution", "weighting", "codec")
    method = [f"{kind} {options[kind]}" for kind in kinds]
    Q = layout.num_weights
    kept = plan.kept
    sparsity = 1 - kept / Q
    of_all = (Q - kept) / layout.num_parameters
    weights = (f"of {Q:,} prunable weights {kept:,} kept, sparsity {sparsity:.3f}; {of_all:.3f} of "
               "all parameters")
    model = f"{options['model']}: {described(layout)}; {weights}"
    return [("method", ", ".join(method)), ("model", model)]


def _ranks_text(ranks, asked, size):
    """``3: 2 workers, 3 clients each at most; 2 cores here``; ``size`` ranks train a client."""
    here = plural(_cores(), "core")
    return f"{ranks}: {_work_of_ranks(ranks, asked, size)}; {here} here"


def _work_of_ranks(ranks, asked, size):
    if ranks == 1:
        one_each = f"mpirun -n {asked * size + 1}"
        workers = "a worker" if size == 1 else plural(size, "worker")
        return f"this process does all; {one_each} would be {workers} a client"
    groups_of_ranks = max((ranks - 1) // size, 1)
    noun = "worker" if size == 1 else "group"
    most = plural(math.ceil(asked / groups_of_ranks), "client")
    text = f"{plural(groups_of_ranks, noun)}"
    if size > 1:
        text += f" of {plural(size, 'worker')}"
    text += f", {most} each at most"
    if groups_of_ranks > asked:
        text += f"; {groups_of_ranks - asked} will lie idle"
    return text


def _cores():
    return len(os.sched_getaffinity(0))


def _bytes_text(plan):
    down = _bytes(plan.down_bytes)
    first = _bytes(plan.first_down_bytes)
    up = _bytes(plan.up_bytes)
    dense = _bytes(plan.dense_bytes)
    sent = f"{down} down ({first} in round 1), {up} up, of messages encoded here"
    return f"{sent}; {dense} would be dense float32 both ways"


def _memory_text(setup, plan, ranks):
    need = host_need(setup, ranks, first=True)
    in_all = _bytes(footprint.SERVER_BYTES + ranks * footprint.RANK_BYTES + need.total)
    here = f"estimated; this process took {_bytes(plan.rank_bytes)}"
    if ranks == 1:
        return f"about {in_all}, {here}"
    of_worker = _bytes(footprint.RANK_BYTES + need.worker)
    of_server = _bytes(footprint.SERVER_BYTES + footprint.RANK_BYTES + need.server)
    shared = _bytes(need.shared)
    parts = f"{of_worker} a worker, {of_server} rank 0, {shared} shared by them"
    return f"about {parts}, {in_all} in all, {here}"


def _gpus(setup, at_once):
    """The row about GPUs, if any is used."""
    options = setup.options
    if "cuda" not in (options["device"], options["server_device"]):
        return []
    worker, server = gpu_needs(options, setup.data, setup.network)
    needs = []
    if options["device"] == "cuda":
        needs.append(f"a worker takes about {footprint.in_words(worker)}")
    if options["server_device"] == "cuda":
        needs.append(f"the server about {footprint.in_words(server)}")
    count = torch.cuda.device_count()
    share = math.ceil(at_once / count)
    text = f"{count}, the first {torch.cuda.get_device_name(0)}; {'; '.join(needs)}"
    if share > 1 and options["device"] == "cuda":
        text += f"; up to {share} workers share one and are slower together than the times here say"
    return [("GPUs", text)]


def _flops_text(flops):
    rigl, prunefl = f"{flops['rigl']:.3g}", f"{flops['prunefl']:.3g}"
    return f"{rigl} by RigL's convention, {prunefl} by PruneFL's, {flops['dense']:.3g} dense"


def _time_rows(setup, plan, ranks, at_once):
    """The rows about time: a round, all rounds, and how the figures were measured."""
    T = setup.options["rounds"]
    round_s = _round_s(plan, ranks, at_once)
    of_round = f"about {_seconds(round_s)}"
    if ranks > 1:
        of_round += f" on {ranks} ranks"
    alone = f"{_seconds(plan.round_s)} in one process"
    shared = f"of which {_seconds(plan.shared_s)} are shared by workers"
    in_all = f"about {_seconds(round_s * T)} for {plural(T, 'round')}, without the start"
    return [
        ("time a round", f"{of_round}; {alone}, {shared}"),
        ("time in all", in_all),
        ("timed", _timed_text(plan, setup.run)),
    ]


def _round_s(plan, ranks, at_once):
    """Seconds of a round on so many ranks; more ranks than cores slow each other down."""
    turns = math.ceil(plan.asked / at_once)
    # One process takes a turn a client.
    left_share = turns / plan.asked
    saved_s = plan.shared_s * (1 - left_share)
    busy = min(at_once, ranks)
    slower = max(1.0, busy / _cores())
    round_s = plan.round_s - saved_s
    return round_s * slower


def _timed_text(plan, run):
    """How the figures were measured."""
    text = "played whole"
    if not plan.exact:
        text = _part_text(plan, run)
    if plan.played.row["mask_changed"]:
        text += "; in round 2, which moved the mask; rounds without a move take less"
    return text


def _part_text(plan, run):
    """How a plan was scaled from the played part of the run."""
    part = plan.played
    rounds = f"two rounds of {part.clients} of {plural(plan.asked, 'client')}"
    if part.cut:
        rounds += f" of {part.samples:.0f} samples each"
    too_long = f"the whole would have taken more than {LIMIT_S:.0f} s"
    text = f"{rounds}, scaled by clients and samples; {too_long}"
    asks_utilities = any(method.validated for method in run.contributions.values())
    # The number of utilities need not grow like the number of clients.
    if part.clients < plan.asked and asks_utilities:
        text += "; scores of contributions may grow faster than that"
    return text


def _bytes(number):
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def _seconds(number):
    for unit, size in (("h", 3600), ("min", 60)):
        if number >= 2 * size:
            return f"{number / size:.2g} {unit}"
    if number >= 0.1:
        return f"{number:.2g} s"
    return f"{1000 * number:.2g} ms"
