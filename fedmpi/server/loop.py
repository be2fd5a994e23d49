"""The server: one round (``run_round``, ``aggregate``), and the loop over rounds (``simulate``)."""

import time
from collections import deque
from typing import Iterator, NamedTuple

import torch

from fedmpi.client.stats import Stats, advice
from fedmpi.compute.evaluate import finite
from fedmpi.core.errors import FedError, Stopped
from fedmpi.core.parts import Cohort, Replies, Round
from fedmpi.core.rng import Purpose, stream
from fedmpi.server import asynchronous, client_states, own_accuracy, record
from fedmpi.server.answers import Outcome
from fedmpi.server.exchange import remembered
from fedmpi.server.fold import stack, summed
from fedmpi.server.lab import round_lab, update_beside
from fedmpi.server.model import mask_counted, model_on, model_sent, model_tested
from fedmpi.server.recruit import recruit, present
from fedmpi.server.score import score
from fedmpi.server.slices import Slices, Stopwatch, finish
from fedmpi.wire.feedback import carried

# Names of entries of the state in earlier checkpoints, and their names now.
NEW_NAMES = {
    "held": "last_round_of",
    "changed": "mask_since",
    "sent": "last_sent_mask",
    "least": "earliest_finish",
}
# Seconds from one checkpoint to the next, unless the user counts in rounds.
SAVED_S = 1.0


class RoundResult(NamedTuple):
    """A round once its model stands; the evaluation is still to come."""

    state: dict                   # after the round
    row: dict                     # of /rounds, the columns of the evaluation still missing
    clients: dict                 # rows of /clients
    evaluation: Iterator          # slices of work, which end in the missing columns
    own: dict | None = None       # rows of /own, if clients were tested on their own test parts


class Aggregated(NamedTuple):
    """The effect of the C merged answers of a round."""

    changes: dict                 # entries of the state
    merged: torch.Tensor          # (P,) the model before pruning and growing
    weights: torch.Tensor         # (C,) float64, shares in the merge
    scores: dict = {}             # {label: Scores}, by estimator
    num_coalitions: dict = {}     # {label: coalitions that the estimator asked for}
    seconds: dict = {}            # {label: seconds}
    calls: int = 0                # coalition models evaluated, by all estimators together
    recorded: dict = {}           # {column: number} of the strategy's own


# ------------------------------------------------------------- a round


def run_round(run, state, t):
    """``RoundResult``: clients train in round ``t``, estimators score them, the server merges."""
    laps = record.Clock(run.transport)
    mask = state["mask"]
    support = run.layout.support(mask)
    lab = round_lab(run, t, mask)

    # Models out, answers in.
    got, server_update = exchanged(run, state, t, support, laps, lab)
    beside_s = lab.seconds
    own_training_done_s = state["now"] + beside_s
    all_done_s = max(got.now, own_training_done_s)

    # Scores, weights, merge, pruning.
    if len(got.merged_rows):
        aggregated = aggregate(run, state, t, support, got, laps, lab, server_update)
    else:
        aggregated = nothing(run, state, support)

    # The server's own training ran beside the clients'; the rest of its work came after them.
    after_merge_s = lab.seconds - beside_s
    got = got._replace(now=all_done_s + after_merge_s)
    after = next_state(run, state, t, support, got, aggregated)

    # The record of the round.
    row = row_of(run, state, after, t, got, aggregated, lab, laps)
    client_rows = record.client_rows(run, t, got, aggregated)
    now = Round(t, run.rounds)
    is_due = evaluates(run.evaluate_every)
    # The next round's clients train while this model is evaluated.
    work = evaluated(run, after, aggregated.merged, due=is_due(now))
    evaluation = Slices(work)
    result = RoundResult(after, row, client_rows, evaluation)
    return tested_by_clients(run, result, t)


def aggregate(run, state, t, support, got, laps, lab, server_update=None):
    """``Aggregated``: score the answers of ``got``, weigh them, merge them, then prune and grow.

    ``support (K,)`` is the server's. ``server_update (K,)`` is the update of the server's own
    training, if the strategy has one.
    """
    replies = [got.answers[row] for row in got.merged_rows.tolist()]
    updates = updates_of(run, t, support, got, replies, server_update)
    total = None
    # Workers have added updates up if the merge needs no single ones.
    if run.sums_on_workers:
        shares = got.shares[got.merged_rows]
        total = summed(run, updates, shares, support)
    laps.lap("train_s")

    # How much did each client contribute?
    clients = updates.clients
    cohort = Cohort(
        clients=clients,
        updates=updates,
        now=updates.round,
        shares=present(state, clients),
        x=model_sent(run, state, support),
        layout=run.layout)
    reports = [reply.scores for reply in replies]
    scored = score(run, state, cohort, reports, t)
    phi = scored.scores[run.weighs].phi
    weighting, weights = run.weighting.weigh(state["weighting"], phi, cohort)
    laps.lap("contribution_s")

    strategy, x = merge(run, state, updates, total, weights, laps, lab)
    merged = x
    if run.pruner.keeps_pruned_values:
        # This pruner keeps values of pruned weights; the model has none.
        merged = model_on(x, updates.support, run.layout)
    recorded = own_columns(run, strategy, updates, total)

    # Prune and grow; the rest of the state follows.
    for_pruner = replies_for_pruner(run, updates, weights, weighting, replies)
    on_support = updates.support is support
    changes = prune(run, state, t, x, for_pruner, on_support)
    changes["strategy"] = strategy
    changes["weighting"] = weighting
    changes["losses"] = losses_after(state, clients, replies)
    changes["contribution"] = scored.states
    laps.lap("merge_s")
    return Aggregated(
        changes=changes,
        merged=merged,
        weights=weights,
        scores=scored.scores,
        num_coalitions=scored.num_coalitions,
        seconds=scored.seconds,
        calls=scored.calls,
        recorded=recorded)


# ------------------------------------------------------------- its steps, in their order


def exchanged(run, state, t, support, laps, lab):
    """``(Recruited, server_update)``: the cohort's answers, and the server's own update.

    ``server_update (K,)`` is None if the strategy trains nothing on the server before the merge.
    """
    recruiting = recruit
    if run.timing.buffer:
        recruiting = asynchronous.recruit
    if run.strategy.before is None:
        got = recruiting(run, state, t, support, laps)
        return got, None
    base = model_sent(run, state, support)
    training = run.strategy.before(state["strategy"], base, state["mask"])
    work = lab.work([training])
    # Workers train for the server while others train clients.
    run = run._replace(beside=work.beside)
    got = recruiting(run, state, t, support, laps)
    server_update = update_beside(run, t, work, base, support)
    return got, server_update


def updates_of(run, t, support, got, replies, server_update):
    """``Updates`` of ``replies``: U is (C, K), a client a row, a kept weight a column."""
    rows = got.merged_rows
    updates = stack(run, replies, support)
    updates = updates._replace(
        clients=got.clients[rows],
        N=len(run.sizes),
        seconds=got.seconds[rows],
        round=Round(t, run.rounds))
    if server_update is not None:
        # Clients' masks may have widened the support.
        server_update = carried(server_update, support, updates.support, run.layout.P)
        updates = updates._replace(server_update=server_update)
    return updates


def merge(run, state, updates, total, weights, laps, lab):
    """``(strategy's state, x (P,))`` after the merge, and after the server's own work on it.

    ``total`` holds the workers' sum of the updates in one row, or is None.
    """
    strategy, x = state["strategy"], state["x"]
    if total is None:
        strategy, x = run.strategy.merge(strategy, x, updates, weights)
    else:
        # The workers have weighted the single updates.
        whole = torch.ones(1, dtype=torch.float64)
        strategy, x = run.strategy.merge(strategy, x, total, whole)
    if run.strategy.after is not None:
        laps.lap("merge_s")
        strategy, x = run.strategy.after(strategy, x, updates, lab.lab)
        laps.lap("lab_s")
    return strategy, x


def own_columns(run, strategy, updates, total):
    """``{column: number}`` of the strategy's own columns of /rounds."""
    if run.strategy.record is None:
        return {}
    if total is not None:
        updates = updates._replace(totals=total.totals)
    return run.strategy.record(strategy, updates)


def replies_for_pruner(run, updates, weights, weighting, replies):
    """``Replies``: the arguments of a pruner about the round."""
    return Replies(
        updates=updates,
        weights=weights,
        reports=[reply.report for reply in replies],
        layout=run.layout,
        macs_per_weight=run.costs.macs_per_weight,
        clients=updates.clients,
        scores=weighting.get("score", weighting["weights"]),
        sizes=run.sizes)


def prune(run, state, t, x, replies, on_support):
    """Entries of the next state after pruning ``x (P,)``: ``x, mask, mask_since, pruner``.

    ``replies`` are ``Replies``. ``on_support``: the merge left nothing off the support of the mask.
    """
    last, layout = state["mask"], run.layout
    gen = stream(run.seed, Purpose.EVOLVE, t)
    now = Round(t, run.rounds)
    pruner, mask, *rewound = run.pruner.evolve(state["pruner"], last, x, replies, now, gen)
    # Some pruners take the model back to earlier values.
    if rewound:
        x = rewound[0]
    same = mask is last
    if run.pruner.exact and not same:
        kept = sum(layout.kept(mask))
        before = sum(layout.kept(last))
        assert kept == before, "the number of kept weights changed"

    is_served = same and on_support and not rewound
    if not (run.pruner.keeps_pruned_values or is_served):
        support = layout.support(mask)
        x = model_on(x, support, layout)
    mask_since = state["mask_since"]
    if not (same or torch.equal(mask, last)):
        mask_since = t + 1
    return {
        "x": x,
        "mask": mask,
        "mask_since": mask_since,
        "pruner": pruner,
    }


def losses_after(state, clients, replies):
    """(N,) float64: each client's last training loss, new for ``clients (C,)``."""
    losses = [reply.numbers[Stats.LOSS] for reply in replies]
    losses = torch.tensor(losses, dtype=torch.float64)
    return state["losses"].index_copy(0, clients, losses)


def nothing(run, state, support):
    """``Aggregated`` of a round without any answer fit for merging: the model stays."""
    model = model_on(state["x"], support, run.layout)
    no_weights = torch.empty(0, dtype=torch.float64)
    return Aggregated({}, model, no_weights)


def next_state(run, state, t, support, got, aggregated):
    """The state after round ``t``."""
    after = state | aggregated.changes
    mask = state["mask"]
    after["now"] = got.now
    after["last_sent_mask"] = mask
    # A client that dropped out may never have seen the model.
    answered = got.clients[got.outcome != Outcome.DROPPED]
    after["last_round_of"] = state["last_round_of"].index_fill(0, answered, t)
    if run.needs_previous_model:
        after["previous"] = model_on(state["x"], support, run.layout)
    if run.kept_fields:
        after["clients"] = states_of_clients(run, state, t, got)
        after["grown"] = client_states.grown(state["grown"], after["mask"], mask, t)
    if run.timing.buffer:
        after["flight"] = got.flight
    return after


def states_of_clients(run, state, t, got):
    """``{client: Kept}`` after the merge: new states for the merged clients."""
    merged = got.merged_rows.tolist()
    return remembered(
        run=run,
        state=state,
        t=t,
        clients=got.clients[merged],
        answers=[got.answers[row] for row in merged],
        masks=[got.masks[row] for row in merged])


def row_of(run, state, after, t, got, aggregated, lab, laps):
    """The row of /rounds, the evaluation's columns still missing. Warns if no update was merged."""
    row = record.round_row(run, state, after, t, got, aggregated)
    row |= record.costs(run, aggregated)
    row |= record.own_costs(run, lab)
    row |= record.of_strategy(run.strategy, aggregated)
    if not row["merged"]:
        run.tell(nobody(row))
    wire = {
        "wire_sent_bytes": run.transport.sent,
        "wire_received_bytes": run.transport.received,
        "round_s": laps.total(),
    }
    return row | laps.seconds | wire


def nobody(row):
    """The warning about a round without merged updates, from its row."""
    counts = []
    for name in ("late", "dropped", "rejected", "failed"):
        if row[name]:
            counts.append(f"{row[name]} {name}")
    return (f"warning: round {row['round']} merged nobody's update, the model stays: of "
            f"{row['asked']} asked {', '.join(counts)}; see --devices, --timing")


def tested_by_clients(run, result, t):
    """``result`` with the results of clients' own test parts, if the round has some.

    Rank 0 goes on with the round's evaluation while workers test.
    """
    if run.own_tests is None:
        return result
    now = Round(t, run.rounds)
    is_due = evaluates(run.own_tests.test_every)
    if not is_due(now):
        missing = own_accuracy.nothing(run.objective.headline)
        row = result.row | missing
        return result._replace(row=row)
    mask = mask_counted(run.pruner, run.layout, result.state)
    own_row, rows = own_accuracy.evaluate(run, result.state, mask, t, result.evaluation)
    row = result.row | own_row
    return result._replace(row=row, own=rows)


def evaluates(period):
    """``is_due(now: Round) -> bool``: every ``period``-th round is evaluated, and the last one."""
    def is_due(now):
        return now.t % period == 0 or now.t == now.rounds

    return is_due


def evaluated(run, state, merged, due=True):
    """A generator of slices of work, which ends in the columns about the new model of ``state``.

    These are its digest, and losses and metrics on the test and validation sets: NaN unless
    ``due``, and if the server has no model. ``merged (P,)`` is the model before pruning and
    growing; where pruning changed it, it is tested as well.
    """
    row = {"weights_digest": record.digest(state["x"], state["mask"])}
    yield
    if not (due and run.layout.travels):
        return row | record.no_evaluation(run)
    x = model_tested(run, state)
    timed = Stopwatch()
    loss, metrics = yield from timed(run.test(x))
    way_out = advice("training", run.codec.exact)
    row["loss"] = finite(loss, "the merged model", way_out)
    row |= metrics
    before = metrics
    if not torch.equal(x, merged):
        _, before = yield from timed(run.test(merged))
    headline = run.objective.headline
    row[f"{headline}_before"] = before[headline]
    if run.validate is not None:
        loss, metrics = yield from timed(run.validate(x))
        row["val_loss"] = finite(loss, "the merged model, on validation samples,", way_out)
        row |= {f"val_{name}": value for name, value in metrics.items()}
    row["evaluate_s"] = timed.seconds
    return row


# ------------------------------------------------------------- the loop over rounds


def start(run, x):
    """The state before round 1, from the initial vector ``x (P,)``: all that a checkpoint holds.

    It is a nested dict of tensors and numbers:

    * ``x (P,)`` and ``mask (Q,)``: the model; ``strategy``, ``pruner``, ``weighting`` and
      ``contribution``: states of these parts; ``now``: virtual time in seconds;
    * ``last_sent_mask (Q,)``: the mask of the last model message; ``mask_since``: the first round
      of the present mask; ``last_round_of (N,)``: the last round of each client; ``losses (N,)``:
      its last training loss;
    * ``previous (P,)``: the model of the round before, for faults that replay it;
    * ``clients`` and ``grown (Q,)``: see ``fedmpi.server.client_states``;
    * ``flight``: clients at work between two rounds, see ``fedmpi.server.asynchronous``.
    """
    gen = stream(run.seed, Purpose.MASK)
    pruner, mask = run.pruner.init(run.layout, x, Round(0, run.rounds), gen)
    if not run.pruner.keeps_pruned_values:
        x = model_on(x, run.layout.support(mask), run.layout)
    N = len(run.sizes)
    contribution = {label: part.init(run.sizes) for label, part in run.contributions.items()}
    state = {
        "x": x,
        "mask": mask,
        "last_sent_mask": torch.zeros_like(mask),
        "mask_since": 1,
        "last_round_of": torch.zeros(N, dtype=torch.int64),
        "strategy": run.strategy.init(run.layout),
        "pruner": pruner,
        "weighting": run.weighting.init(run.sizes),
        "now": 0.0,
        "losses": torch.full((N,), torch.nan, dtype=torch.float64),
        "contribution": contribution,
    }
    if run.needs_previous_model:
        state["previous"] = torch.zeros_like(x)
    if run.kept_fields:
        state["clients"] = {}
        state["grown"] = torch.zeros(run.layout.Q, dtype=torch.int32)
    if run.timing.buffer:
        at_work = run.timing.concurrency or run.cohort
        state["flight"] = asynchronous.nobody(at_work)
    return state


def simulate(run, state, store, first, last, *, save_every=0, keep=2, on_round=lambda row: None):
    """Play rounds ``first`` to ``last``; returns the state after the last.

    A checkpoint is saved every ``save_every`` rounds; with 0, after each round that ends SAVED_S
    after the last checkpoint, so that saving takes no part of short rounds. ``keep`` checkpoints
    stay. ``on_round(row)`` hears of each round.

    A round is evaluated, recorded and saved while clients train in the next one. Its row is written
    before its checkpoint: a run killed between the two plays the round again, to the same bits. A
    run that is asked to stop, or loses a rank, saves its last whole round.
    """
    if client_states.spills(run.kept_fields, run.layout, len(run.sizes)):
        run = run._replace(shelf=store.shelf)
    ledger = Ledger(run.shelf, store, first, last, save_every, keep, on_round)
    owed = iter(())
    try:
        for t in range(first, last + 1):
            if name := run.transport.stop_signal():
                raise Stopped(f"asked to stop by {name}")
            result = run_round(run._replace(meanwhile=owed), state, t)
            finish(owed)
            state = result.state
            owed = ledger.settle(result, t)
        finish(owed)
        store.settle()
    except FedError:
        # The last whole round is saved even if its evaluation raises.
        try:
            finish(owed)
        finally:
            ledger.save_last()
            store.settle()
        raise
    return state


class Ledger:
    """Writes rounds down: rows into the store, and a checkpoint now and then."""

    def __init__(self, shelf, store, first, last, save_every, keep, on_round):
        self.shelf = shelf
        self.store = store
        self.last = last
        self.save_every = save_every
        self.keep = keep
        self.on_round = on_round
        self.saved_t = first - 1
        self.written = first - 1, None        # the last written round, and the state after it
        self.saved_at = time.perf_counter()
        self.writing_s = 0.0
        # Until the newest checkpoint is on the disk the oldest is still there.
        self.files_in_use = deque(maxlen=keep + 1)
        if shelf:
            # Rounds after these were given up.
            shelf.sweep(set(), after=first - 1)

    def settle(self, result, t):
        """A generator of slices of work: evaluate round ``t``, write its row, save it if due."""
        columns = yield from result.evaluation
        row = result.row | columns
        begin = time.perf_counter()
        # The row first: a killed run plays a round without a checkpoint again.
        whole_row = row | record.stored(self.writing_s)
        self.store.append(whole_row, result.clients, result.own)
        self.written = t, result.state
        if self._is_due(t, begin):
            self._save(result.state, t, begin)
        self.writing_s = time.perf_counter() - begin
        self.on_round(row)

    def save_last(self):
        """Save the last written round, unless it is saved."""
        t, state = self.written
        if t > self.saved_t:
            self.store.save(saved_state(state), t, self.keep)

    def _is_due(self, t, now_s):
        if t == self.last:
            return True
        if self.save_every:
            return t % self.save_every == 0
        return now_s > self.saved_at + SAVED_S

    def _save(self, state, t, now_s):
        self.store.save(saved_state(state), t, self.keep)
        self.saved_t = t
        self.saved_at = now_s
        files = client_states.files_of(state.get("clients", {}))
        self.files_in_use.append(files)
        # Checkpoints of an earlier session name files, too: wait until those checkpoints are gone.
        all_known = len(self.files_in_use) == self.files_in_use.maxlen
        if self.shelf and all_known:
            in_use = set().union(*self.files_in_use)
            self.shelf.sweep(in_use)


def evaluated_round(run, state, t):
    """``(state after round t, row, client rows)``: the round, evaluated at once."""
    result = run_round(run, state, t)
    columns = finish(result.evaluation)
    row = result.row | columns | record.stored(0.0)
    return result.state, row, result.clients


def saved_state(state):
    """A run's state, as a checkpoint holds it."""
    if "clients" not in state:
        return state
    clients = client_states.as_dict(state["clients"])
    return state | {"clients": clients}


def loaded_state(state):
    """A run's state from a checkpoint."""
    state = _with_new_names(state)
    if "flight" in state:
        state["flight"] = _with_new_names(state["flight"])
    if "clients" not in state:
        return state
    clients = client_states.from_dict(state["clients"])
    return state | {"clients": clients}


def _with_new_names(state):
    return {NEW_NAMES.get(name, name): entry for name, entry in state.items()}
