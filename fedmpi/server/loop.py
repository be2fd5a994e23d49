"""The server: one round on one screen, and the loop around it."""

import math
import time
from collections import deque
from typing import Any, Callable, Iterator, NamedTuple

import torch

from fedmpi.server import asynchronous, own_accuracy, record
from fedmpi.client.numbers import Number
from fedmpi.client.train import OWN, RESIDUAL
from fedmpi.core.errors import FedError, Stopped
from fedmpi.compute.evaluate import finite
from fedmpi.server import client_states
from fedmpi.server.answers import Outcome
from fedmpi.server.exchange import remembered
from fedmpi.server.fold import stack, summed
from fedmpi.server.lab import Holdings, round_lab, update_beside
from fedmpi.core.layout import Layout
from fedmpi.core.support import gathered, scattered
from fedmpi.server.recruit import gather, present
from fedmpi.server.score import judge
from fedmpi.core.parts import (Aggregation, Codec, Cohort, Devices, Field, Objective, Pruner,
                               Replies, Round, Sampler, Strategy, Weighting)
from fedmpi.core.rng import Purpose, stream
from fedmpi.transport.team import NOTHING, Beside
from fedmpi.wire.feedback import carried


class Fed(NamedTuple):
    """A run's parts, already built. N clients of ``sizes (N,)`` float64 samples, ``cohort`` of them a round."""

    layout: Layout
    objective: Objective
    strategy: Strategy
    pruner: Pruner
    contributions: dict           # name -> Contribution: the one that weighs, then those that only observe
    weighting: Weighting
    codec: Codec
    sampler: Sampler
    devices: Devices
    aggregation: Aggregation
    transport: Any
    test: Callable                # vector (P,) -> slices that end in (loss, {metric: mean}) on the test set, never used
    validate: Callable | None     # the same on the server's validation set: for all that selects
    derivatives: tuple | None     # gradient and curvature of the validation loss
    block: int                    # coalition models that one job evaluates
    stale: bool                   # some fault needs the model of the round before
    sizes: torch.Tensor
    cohort: int
    rounds: int
    seed: int
    costs: Any                    # flops.Costs of the model
    fixed: Any                    # tensors.Fixed of the model
    batch_norm: bool              # the model has some
    server: Holdings              # samples of the server's own
    least: torch.Tensor           # (N,) float64 samples that a client's training sees at least
    sums: bool                    # workers add updates up: merging needs no single ones
    values: bool                  # updates come one by one: for merging, or for an estimator
    on_error: str                 # of a client's training: "fatal", "retry" (once, then drop) or "drop"
    every: int                    # rounds from one evaluation to the next
    quorum: float                 # least share of the answers that must be fit for merging
    tell: Callable = lambda line: None      # takes a line about work that goes on for long
    meanwhile: Iterator = iter(())          # slices of work for rank 0 while it waits for clients
    beside: Beside = NOTHING      # jobs of the server's own that workers do while clients train
    together: int = 1             # clients that one worker trains at once
    own_tests: Any = None         # own_accuracy.OwnTests: clients' own test parts, where they have some
    kinds: Any = None             # core.kinds.Kinds, where clients train several networks, or the server has its own
    own_network: Any = None       # own_network.OwnNetwork, where the server has one
    structure: Any = None         # core.units.Structure, where clients train smaller networks
    lr: Callable = lambda now: math.nan     # the learning rate of a client's first step in the Round ``now``
    shelf: Any = None             # files of what clients keep, where that is too much for memory

    @property
    def weighs(self):
        """The label of the estimator that weighs."""
        return next(iter(self.contributions))

    @property
    def kept_fields(self):
        """``{name: Field}`` of what clients keep from one of their rounds to the next."""
        found = dict(self.strategy.keeps)
        if self.codec.feedback:
            found[RESIDUAL] = Field()
        if self.layout.personal:
            # Of several networks each client keeps fewer.
            found[OWN] = Field(on=(len(self.layout.own),))
        return found


def start(fed, x):
    """The state before round 1 from the initial vector ``x (P,)``: a nested dict of tensors and numbers, which is
    also what a checkpoint holds. ``held[n]`` is the last round that client n took part in, ``sent`` the mask of the
    last model message, ``changed`` the first round of the present mask, ``now`` the virtual time in seconds, ``losses``
    the clients' last training losses, ``flight`` who is at work where aggregation is asynchronous, ``clients``
    what each client keeps, ``grown`` the round from which on each weight has lived."""
    pruner, mask = fed.pruner.init(fed.layout, x, Round(0, fed.rounds), stream(fed.seed, Purpose.MASK))
    x = x if fed.pruner.residuals else served(x, fed.layout.support(mask), fed.layout)
    N = len(fed.sizes)
    state = {"x": x, "mask": mask, "sent": torch.zeros_like(mask), "changed": 1,
             "held": torch.zeros(N, dtype=torch.int64), "strategy": fed.strategy.init(fed.layout), "pruner": pruner,
             "weighting": fed.weighting.init(fed.sizes), "now": 0.0,
             "losses": torch.full((N,), torch.nan, dtype=torch.float64),
             "contribution": {name: part.init(fed.sizes) for name, part in fed.contributions.items()}}
    if fed.stale:
        state["previous"] = torch.zeros_like(x)
    if fed.kept_fields:
        state |= {"clients": {}, "grown": torch.zeros(fed.layout.Q, dtype=torch.int32)}
    if fed.aggregation.buffer:
        state["flight"] = asynchronous.nobody(fed.aggregation.concurrency or fed.cohort)
    return state


class Played(NamedTuple):
    """A round whose model stands, before it is evaluated."""

    state: dict                   # after the round
    row: dict                     # of /rounds, without losses and metrics of the test set
    clients: dict                 # rows of /clients
    evaluation: Iterator          # slices of work that end in the columns about the new model
    own: dict | None = None       # rows of /own, where clients were evaluated on their own test parts


def play(fed, state, t):
    """``Played``: clients train, who contributed is judged, what counts is merged."""
    laps, support = record.Clock(fed.transport), fed.layout.support(state["mask"])
    gathering = asynchronous.gather if fed.aggregation.buffer else gather
    lab = round_lab(fed, t, state["mask"])
    own = started(fed, state, support, lab)
    got = gathering(fed if own is None else fed._replace(beside=own.beside), state, t, support, laps)
    root = None if own is None else update_beside(fed, t, own, sent(fed, state, support), support)
    # The server trained while the clients did, and does the rest after the merge.
    begun_s, there_s = lab.seconds, max(got.now, state["now"] + lab.seconds)
    learnt = nothing(fed, state, support)
    if len(got.counts):
        learnt = learn(fed, state, t, support, got, laps, lab, root)
    got = got._replace(now=there_s + (lab.seconds - begun_s))

    after = state | learnt.changes | {"now": got.now, "sent": state["mask"]}
    after["held"] = state["held"].index_fill(0, got.clients[got.outcome != Outcome.DROPPED], t)
    if fed.stale:
        after["previous"] = served(state["x"], support, fed.layout)
    if fed.kept_fields:
        merged = got.counts.tolist()
        answers, masks = [got.answers[row] for row in merged], [got.masks[row] for row in merged]
        after["clients"] = remembered(fed, state, t, got.clients[merged], answers, masks)
        after["grown"] = client_states.grown(state["grown"], after["mask"], state["mask"], t)
    if fed.aggregation.buffer:
        after["flight"] = got.flight
    row = record.round_row(fed, state, after, t, got, learnt) | record.costs(fed, learnt)
    row |= record.own_costs(fed, lab) | record.of_strategy(fed.strategy, learnt)
    if not row["merged"]:
        fed.tell(nobody(row))
    row |= laps.seconds | {"wire_sent_bytes": fed.transport.sent, "wire_received_bytes": fed.transport.received,
                           "round_s": laps.total()}
    evaluation = Slices(evaluated(fed, after, learnt.merged, due=evaluates(fed.every)(Round(t, fed.rounds))))
    played = Played(after, row, record.client_rows(fed, t, got, learnt), evaluation)
    return played if fed.own_tests is None else tested_by_clients(fed, played, t)


def tested_by_clients(fed, played, t):
    """The round with what clients' own test parts say of its model, where they are due. Rank 0 evaluates meanwhile."""
    if not evaluates(fed.own_tests.every)(Round(t, fed.rounds)):
        return played._replace(row=played.row | own_accuracy.nothing(fed.objective.headline))
    mask = counted(fed.pruner, fed.layout, played.state)
    row, rows = own_accuracy.evaluate(fed, played.state, mask, t, played.evaluation)
    return played._replace(row=played.row | row, own=rows)


def evaluates(every):
    """Whether a round of a schedule is evaluated: every ``every``-th is, and the last one."""
    return lambda schedule: schedule.t % every == 0 or schedule.t == schedule.rounds


def play_round(fed, state, t):
    """``(state after round t, row, client rows)``: a round, and its evaluation at once."""
    played = play(fed, state, t)
    return played.state, played.row | finish(played.evaluation) | record.stored(0.0), played.clients


def nobody(row):
    """The line about a round that merged no update, from its row."""
    why = [f"{row[name]} {name}" for name in ("late", "dropped", "rejected", "failed") if row[name]]
    return (f"warning: round {row['round']} merged nobody's update, the model stays: of {row['asked']} asked "
            f"{', '.join(why)}; see --devices, --aggregation")


class Learnt(NamedTuple):
    """What the C clients that count brought about."""

    changes: dict                 # entries of the state
    merged: torch.Tensor          # (P,) before pruning and growing
    weights: torch.Tensor         # (C,) float64
    scores: dict = {}             # {label: Scores}
    asked: dict = {}              # {label: coalitions asked for}
    seconds: dict = {}            # {label: seconds}
    calls: int = 0                # coalition models evaluated
    recorded: dict = {}           # {column: number} of the strategy's own


def started(fed, state, support, lab):
    """The ``Work`` of the training that the server does beside the clients'; None where it does none."""
    if fed.strategy.before is None:
        return None
    return lab.work([fed.strategy.before(state["strategy"], sent(fed, state, support), state["mask"])])


def sent(fed, state, support):
    """(P,): the model that clients receive, zero off ``support``."""
    # Without residuals the model is zero off the mask anyway.
    return served(state["x"], support, fed.layout) if fed.pruner.residuals else state["x"]


def learn(fed, state, t, support, got, laps, lab, root=None):
    """Judge, weigh, merge, prune and grow. U is (C, K): a client a row, a kept weight a column; ``root (K,)`` is the
    update of the server's own training, where there is one."""
    schedule, counts = Round(t, fed.rounds), got.counts
    replies, clients = [got.answers[row] for row in counts.tolist()], got.clients[counts]
    updates = stack(fed, replies, support)
    updates = updates._replace(clients=clients, N=len(fed.sizes), seconds=got.seconds[counts], round=schedule)
    if root is not None:
        updates = updates._replace(root=carried(root, support, updates.support, fed.layout.P))
    total = summed(fed, updates, got.shares[counts], support) if fed.sums else None
    laps.lap("train_s")

    cohort = Cohort(clients, updates, schedule, present(state, clients), sent(fed, state, support), fed.layout)
    scores, asked, seconds, calls = judge(fed, state, cohort, [reply.scores for reply in replies], t)
    phi = next(iter(scores.values())).phi
    weighting, weights = fed.weighting.weigh(state["weighting"], phi, cohort)
    laps.lap("contribution_s")

    merging = (updates, weights) if total is None else (total, torch.ones(1, dtype=torch.float64))
    strategy, x = fed.strategy.merge(state["strategy"], state["x"], *merging)
    if fed.strategy.after is not None:
        laps.lap("merge_s")
        strategy, x = fed.strategy.after(strategy, x, updates, lab.lab)
        laps.lap("lab_s")
    recorded = {}
    if fed.strategy.record is not None:
        recorded = fed.strategy.record(strategy, updates if total is None else updates._replace(totals=total.totals))
    known = Replies(updates, weights, [reply.report for reply in replies], fed.layout, fed.costs.uses, clients,
                    weighting.get("score", weighting["weights"]), fed.sizes)
    merged = served(x, updates.support, fed.layout) if fed.pruner.residuals else x
    pruner, mask, *rewound = fed.pruner.evolve(state["pruner"], state["mask"], x, known, schedule,
                                               stream(fed.seed, Purpose.EVOLVE, t))
    x = rewound[0] if rewound else x
    same, kept = mask is state["mask"], fed.layout.kept
    assert same or not fed.pruner.exact or sum(kept(mask)) == sum(kept(state["mask"])), (
        "the number of kept weights changed")
    stays = same and updates.support is support and not rewound
    x = x if fed.pruner.residuals or stays else served(x, fed.layout.support(mask), fed.layout)
    losses = torch.tensor([reply.numbers[Number.LOSS] for reply in replies], dtype=torch.float64)
    changed = not same and not torch.equal(mask, state["mask"])
    changes = {"x": x, "mask": mask, "changed": t + 1 if changed else state["changed"], "strategy": strategy,
               "pruner": pruner, "weighting": weighting, "losses": state["losses"].index_copy(0, clients, losses),
               "contribution": {name: found.state for name, found in scores.items()}}
    laps.lap("merge_s")
    return Learnt(changes, merged, weights, scores, asked, seconds, calls, recorded)


def nothing(fed, state, support):
    """A round in which no answer counts: the model stays."""
    return Learnt({}, served(state["x"], support, fed.layout), torch.empty(0, dtype=torch.float64))


def counted(pruner, layout, state):
    """(Q,) bool: the mask of the model that counts, also where clients were sent more, or less, than the budget."""
    return state["mask"] if pruner.nominal is None else pruner.nominal(state["pruner"], state["mask"], layout)


def tested(fed, state):
    """(P,): the model that counts, zero off its mask."""
    return served(state["x"], fed.layout.support(counted(fed.pruner, fed.layout, state)), fed.layout)


SAVED_S = 1.0             # seconds that may pass without a checkpoint, where nobody says how many rounds


def simulate(fed, state, store, first, last, *, save_every=0, keep=2, on_round=lambda row: None):
    """Play rounds ``first`` to ``last``; returns the state after the last. Checkpoints come every ``save_every``
    rounds; 0: after each round that ends SAVED_S after the last one, so that saving takes no part of short rounds.

    A round is evaluated, recorded and saved while the clients of the next one train. A row is committed before its
    checkpoint: a run killed between the two plays the round again, to the same bits. Asked to stop, or where another
    rank fails, it saves the last whole one."""
    saved, done, spent, owed = first - 1, (first - 1, state), 0.0, iter(())
    if client_states.spills(fed.kept_fields, fed.layout, len(fed.sizes)):
        fed = fed._replace(shelf=store.shelf)
    if fed.shelf:
        # Rounds after these were given up.
        fed.shelf.sweep(set(), after=first - 1)
    # Until the newest checkpoint is on the disk the oldest is still there.
    named = deque(maxlen=keep + 1)
    before = time.perf_counter()

    def settle(played, t):
        nonlocal saved, done, spent, before
        row = played.row | (yield from played.evaluation)
        begin = time.perf_counter()
        store.append(row | record.stored(spent), played.clients, played.own)
        done = t, played.state
        due = t % save_every == 0 if save_every else begin > before + SAVED_S
        if due or t == last:
            store.save(saved_state(played.state), t, keep)
            named.append(client_states.files_of(played.state.get("clients", {})))
            # Files that older checkpoints of an earlier session name stay until these have gone.
            if fed.shelf and len(named) == named.maxlen:
                fed.shelf.sweep(set().union(*named))
            saved, before = t, begin
        spent = time.perf_counter() - begin
        on_round(row)

    try:
        for t in range(first, last + 1):
            if name := fed.transport.asked():
                raise Stopped(f"asked to stop by {name}")
            played = play(fed._replace(meanwhile=owed), state, t)
            finish(owed)
            state, owed = played.state, settle(played, t)
        finish(owed)
        store.settle()
    except FedError:
        try:
            finish(owed)
        finally:                                           # whatever that may raise
            if done[0] > saved:
                store.save(saved_state(done[1]), done[0], keep)
            store.settle()
        raise
    return state


class Slices:
    """The generator ``work``, whose result is there for whoever comes to its end, also a second time."""

    def __init__(self, work):
        self.work, self.ended, self.result = work, False, None

    def __iter__(self):
        return self

    def __next__(self):
        if not self.ended:
            try:
                return next(self.work)
            except StopIteration as end:
                self.ended, self.result = True, end.value
        raise StopIteration(self.result)


def saved_state(state):
    """A run's state as a checkpoint holds it."""
    return state | {"clients": client_states.as_dict(state["clients"])} if "clients" in state else state


def loaded_state(state):
    """The state that such a checkpoint holds."""
    return state | {"clients": client_states.from_dict(state["clients"])} if "clients" in state else state


def finish(work):
    """What the generator ``work`` returns at its end; None where it has ended before."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def served(x, support, layout):
    """(P,): ``x`` on the support, zero elsewhere, but for tensors that stay with clients, which are as the factory made
    them."""
    whole = scattered(gathered(x, support), support, torch.zeros_like(x))
    if layout.personal:
        whole[layout.own] = x[layout.own]
    return whole


def evaluated(fed, state, merged, due=True):
    """A generator, slice by slice, of the columns that look at the new model: its digest, losses and metrics, NaN where
    no evaluation is due, or where the server has no model; the test set is evaluated again before pruning where that
    differs."""
    known = {"weights_digest": record.digest(state["x"], state["mask"])}
    yield
    if not (due and fed.layout.travels):
        columns = record.evaluation_columns(fed.objective, fed.validate is not None, record.names_of(fed.kinds))
        return known | dict.fromkeys([column.name for column in columns] + ["evaluate_s"], math.nan)
    headline, before = fed.objective.headline, f"{fed.objective.headline}_before"
    x, timed = tested(fed, state), record.Stopwatch()
    loss, metrics = yield from timed(fed.test(x))
    row = known | {"loss": finite(loss, "the merged model")} | metrics | {before: metrics[headline]}
    if not torch.equal(x, merged):
        row[before] = (yield from timed(fed.test(merged)))[1][headline]
    if fed.validate is not None:
        loss, metrics = yield from timed(fed.validate(x))
        row["val_loss"] = finite(loss, "the merged model, on validation samples,")
        row |= {f"val_{name}": value for name, value in metrics.items()}
    return row | {"evaluate_s": timed.seconds}
