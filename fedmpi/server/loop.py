"""The server: one round (``play`` and ``learn``), and the loop over rounds (``simulate``)."""

import time
from collections import deque
from typing import Iterator, NamedTuple

import torch

from fedmpi.client.numbers import Number
from fedmpi.compute.evaluate import finite
from fedmpi.core.errors import FedError, Stopped
from fedmpi.core.parts import Cohort, Replies, Round
from fedmpi.core.rng import Purpose, stream
from fedmpi.server import asynchronous, client_states, own_accuracy, record
from fedmpi.server.answers import Outcome
from fedmpi.server.exchange import remembered
from fedmpi.server.fold import stack, summed
from fedmpi.server.lab import round_lab, update_beside
from fedmpi.server.model import counted, sent, served, tested
from fedmpi.server.recruit import gather, present
from fedmpi.server.score import judge
from fedmpi.server.slices import Slices, Stopwatch, finish
from fedmpi.wire.feedback import carried

# Seconds from one checkpoint to the next, unless the user counts in rounds.
SAVED_S = 1.0


class Played(NamedTuple):
    """A round once its model stands; the evaluation is still to come."""

    state: dict                   # after the round
    row: dict                     # of /rounds, the columns of the evaluation still missing
    clients: dict                 # rows of /clients
    evaluation: Iterator          # slices of work, which end in the missing columns
    own: dict | None = None       # rows of /own, if clients were tested on their own test parts


class Learnt(NamedTuple):
    """The effect of the C merged answers of a round."""

    changes: dict                 # entries of the state
    merged: torch.Tensor          # (P,) the model before pruning and growing
    weights: torch.Tensor         # (C,) float64, shares in the merge
    scores: dict = {}             # {label: Scores}, by estimator
    asked: dict = {}              # {label: coalitions that the estimator asked for}
    seconds: dict = {}            # {label: seconds}
    calls: int = 0                # coalition models evaluated, by all estimators together
    recorded: dict = {}           # {column: number} of the strategy's own


# ------------------------------------------------------------- a round


def play(fed, state, t):
    """``Played``: clients train in round ``t``, estimators score them, the server merges."""
    laps = record.Clock(fed.transport)
    mask = state["mask"]
    support = fed.layout.support(mask)
    lab = round_lab(fed, t, mask)

    # Models out, answers in.
    got, root = exchanged(fed, state, t, support, laps, lab)
    beside_s = lab.seconds
    own_training_done_s = state["now"] + beside_s
    all_done_s = max(got.now, own_training_done_s)

    # Scores, weights, merge, pruning.
    if len(got.counts):
        learnt = learn(fed, state, t, support, got, laps, lab, root)
    else:
        learnt = nothing(fed, state, support)

    # The server's own training ran beside the clients'; the rest of its work came after them.
    after_merge_s = lab.seconds - beside_s
    got = got._replace(now=all_done_s + after_merge_s)
    after = next_state(fed, state, t, support, got, learnt)

    # The record of the round.
    row = row_of(fed, state, after, t, got, learnt, lab, laps)
    client_rows = record.client_rows(fed, t, got, learnt)
    is_due = evaluates(fed.every)(Round(t, fed.rounds))
    # The next round's clients train while this model is evaluated.
    evaluation = Slices(evaluated(fed, after, learnt.merged, due=is_due))
    played = Played(after, row, client_rows, evaluation)
    return tested_by_clients(fed, played, t)


def learn(fed, state, t, support, got, laps, lab, root=None):
    """``Learnt``: score the answers of ``got``, weigh them, merge them, then prune and grow.

    ``support (K,)`` is the server's. ``root (K,)`` is the update of the server's own training, if
    the strategy has one.
    """
    replies = [got.answers[row] for row in got.counts.tolist()]
    updates = updates_of(fed, t, support, got, replies, root)
    total = None
    # Workers have added updates up if the merge needs no single ones.
    if fed.sums:
        shares = got.shares[got.counts]
        total = summed(fed, updates, shares, support)
    laps.lap("train_s")

    # How much did each client contribute?
    clients = updates.clients
    cohort = Cohort(
        clients=clients,
        updates=updates,
        schedule=updates.round,
        shares=present(state, clients),
        x=sent(fed, state, support),
        layout=fed.layout)
    reports = [reply.scores for reply in replies]
    judged = judge(fed, state, cohort, reports, t)
    phi = judged.scores[fed.weighs].phi
    weighting, weights = fed.weighting.weigh(state["weighting"], phi, cohort)
    laps.lap("contribution_s")

    strategy, x = merge(fed, state, updates, total, weights, laps, lab)
    merged = x
    if fed.pruner.residuals:
        # This pruner keeps values of pruned weights; the model has none.
        merged = served(x, updates.support, fed.layout)
    recorded = own_columns(fed, strategy, updates, total)

    # Prune and grow; the rest of the state follows.
    known = known_to_pruner(fed, updates, weights, weighting, replies)
    on_support = updates.support is support
    changes = prune(fed, state, t, x, known, on_support)
    changes["strategy"] = strategy
    changes["weighting"] = weighting
    changes["losses"] = losses_after(state, clients, replies)
    changes["contribution"] = judged.states
    laps.lap("merge_s")
    return Learnt(
        changes=changes,
        merged=merged,
        weights=weights,
        scores=judged.scores,
        asked=judged.asked,
        seconds=judged.seconds,
        calls=judged.calls,
        recorded=recorded)


# ------------------------------------------------------------- its steps, in their order


def exchanged(fed, state, t, support, laps, lab):
    """``(Gathered, root)``: the cohort's answers, and the update of the server's own training.

    ``root (K,)`` is None if the strategy trains nothing on the server before the merge.
    """
    gathering = asynchronous.gather if fed.timing.buffer else gather
    if fed.strategy.before is None:
        got = gathering(fed, state, t, support, laps)
        return got, None
    base = sent(fed, state, support)
    training = fed.strategy.before(state["strategy"], base, state["mask"])
    work = lab.work([training])
    # Workers train for the server while others train clients.
    fed = fed._replace(beside=work.beside)
    got = gathering(fed, state, t, support, laps)
    root = update_beside(fed, t, work, base, support)
    return got, root


def updates_of(fed, t, support, got, replies, root):
    """``Updates`` of ``replies``: U is (C, K), a client a row, a kept weight a column."""
    counts = got.counts
    updates = stack(fed, replies, support)
    updates = updates._replace(
        clients=got.clients[counts],
        N=len(fed.sizes),
        seconds=got.seconds[counts],
        round=Round(t, fed.rounds))
    if root is not None:
        # Clients' masks may have widened the support.
        root = carried(root, support, updates.support, fed.layout.P)
        updates = updates._replace(root=root)
    return updates


def merge(fed, state, updates, total, weights, laps, lab):
    """``(strategy's state, x (P,))`` after the merge, and after the server's own work on it.

    ``total`` holds the workers' sum of the updates in one row, or is None.
    """
    strategy, x = state["strategy"], state["x"]
    if total is None:
        strategy, x = fed.strategy.merge(strategy, x, updates, weights)
    else:
        # The workers have weighted the single updates.
        whole = torch.ones(1, dtype=torch.float64)
        strategy, x = fed.strategy.merge(strategy, x, total, whole)
    if fed.strategy.after is not None:
        laps.lap("merge_s")
        strategy, x = fed.strategy.after(strategy, x, updates, lab.lab)
        laps.lap("lab_s")
    return strategy, x


def own_columns(fed, strategy, updates, total):
    """``{column: number}`` of the strategy's own columns of /rounds."""
    if fed.strategy.record is None:
        return {}
    if total is not None:
        updates = updates._replace(totals=total.totals)
    return fed.strategy.record(strategy, updates)


def known_to_pruner(fed, updates, weights, weighting, replies):
    """``Replies``: the arguments of a pruner about the round."""
    return Replies(
        updates=updates,
        weights=weights,
        reports=[reply.report for reply in replies],
        layout=fed.layout,
        uses=fed.costs.uses,
        clients=updates.clients,
        scores=weighting.get("score", weighting["weights"]),
        sizes=fed.sizes)


def prune(fed, state, t, x, known, on_support):
    """Entries of the next state: ``x``, ``mask``, ``changed``, ``pruner`` after pruning ``x (P,)``.

    ``known`` is ``Replies``. ``on_support``: the merge left nothing off the support of the mask.
    """
    last, layout = state["mask"], fed.layout
    gen = stream(fed.seed, Purpose.EVOLVE, t)
    now = Round(t, fed.rounds)
    pruner, mask, *rewound = fed.pruner.evolve(state["pruner"], last, x, known, now, gen)
    # Some pruners take the model back to earlier values.
    if rewound:
        x = rewound[0]
    same = mask is last
    if fed.pruner.exact and not same:
        kept, before = sum(layout.kept(mask)), sum(layout.kept(last))
        assert kept == before, "the number of kept weights changed"

    is_served = same and on_support and not rewound
    if not (fed.pruner.residuals or is_served):
        x = served(x, layout.support(mask), layout)
    changed = state["changed"]
    if not (same or torch.equal(mask, last)):
        changed = t + 1
    return {"x": x, "mask": mask, "changed": changed, "pruner": pruner}


def losses_after(state, clients, replies):
    """(N,) float64: each client's last training loss, new for ``clients (C,)``."""
    losses = [reply.numbers[Number.LOSS] for reply in replies]
    losses = torch.tensor(losses, dtype=torch.float64)
    return state["losses"].index_copy(0, clients, losses)


def nothing(fed, state, support):
    """``Learnt`` of a round without any answer fit for merging: the model stays."""
    model = served(state["x"], support, fed.layout)
    no_weights = torch.empty(0, dtype=torch.float64)
    return Learnt({}, model, no_weights)


def next_state(fed, state, t, support, got, learnt):
    """The state after round ``t``."""
    after = state | learnt.changes
    mask = state["mask"]
    after["now"] = got.now
    after["sent"] = mask
    # A client that dropped out may never have seen the model.
    answered = got.clients[got.outcome != Outcome.DROPPED]
    after["held"] = state["held"].index_fill(0, answered, t)
    if fed.stale:
        after["previous"] = served(state["x"], support, fed.layout)
    if fed.kept_fields:
        after["clients"] = states_of_clients(fed, state, t, got)
        after["grown"] = client_states.grown(state["grown"], after["mask"], mask, t)
    if fed.timing.buffer:
        after["flight"] = got.flight
    return after


def states_of_clients(fed, state, t, got):
    """``{client: Kept}`` after the merge: new states for the merged clients."""
    merged = got.counts.tolist()
    clients = got.clients[merged]
    answers = [got.answers[row] for row in merged]
    masks = [got.masks[row] for row in merged]
    return remembered(fed, state, t, clients, answers, masks)


def row_of(fed, state, after, t, got, learnt, lab, laps):
    """The row of /rounds, the evaluation's columns still missing. Warns if no update was merged."""
    row = record.round_row(fed, state, after, t, got, learnt)
    row |= record.costs(fed, learnt)
    row |= record.own_costs(fed, lab)
    row |= record.of_strategy(fed.strategy, learnt)
    if not row["merged"]:
        fed.tell(nobody(row))
    wire = {
        "wire_sent_bytes": fed.transport.sent,
        "wire_received_bytes": fed.transport.received,
        "round_s": laps.total(),
    }
    return row | laps.seconds | wire


def nobody(row):
    """The warning about a round without merged updates, from its row."""
    outcomes = ("late", "dropped", "rejected", "failed")
    counts = [f"{row[name]} {name}" for name in outcomes if row[name]]
    return (f"warning: round {row['round']} merged nobody's update, the model stays: of "
            f"{row['asked']} asked {', '.join(counts)}; see --devices, --timing")


def tested_by_clients(fed, played, t):
    """``played`` with the results of clients' own test parts, if the round has some.

    Rank 0 goes on with the round's evaluation while workers test.
    """
    if fed.own_tests is None:
        return played
    is_due = evaluates(fed.own_tests.every)(Round(t, fed.rounds))
    if not is_due:
        missing = own_accuracy.nothing(fed.objective.headline)
        return played._replace(row=played.row | missing)
    mask = counted(fed.pruner, fed.layout, played.state)
    row, rows = own_accuracy.evaluate(fed, played.state, mask, t, played.evaluation)
    return played._replace(row=played.row | row, own=rows)


def evaluates(every):
    """``is_due(now: Round) -> bool``: every ``every``-th round is evaluated, and the last one."""
    return lambda now: now.t % every == 0 or now.t == now.rounds


def evaluated(fed, state, merged, due=True):
    """A generator of slices of work, which ends in the columns about the new model of ``state``.

    These are its digest, and losses and metrics on the test and validation sets: NaN unless
    ``due``, and if the server has no model. ``merged (P,)`` is the model before pruning and
    growing; where pruning changed it, it is tested as well.
    """
    row = {"weights_digest": record.digest(state["x"], state["mask"])}
    yield
    if not (due and fed.layout.travels):
        return row | record.no_evaluation(fed)
    x = tested(fed, state)
    timed = Stopwatch()
    loss, metrics = yield from timed(fed.test(x))
    row["loss"] = finite(loss, "the merged model")
    row |= metrics
    before = metrics
    if not torch.equal(x, merged):
        _, before = yield from timed(fed.test(merged))
    headline = fed.objective.headline
    row[f"{headline}_before"] = before[headline]
    if fed.validate is not None:
        loss, metrics = yield from timed(fed.validate(x))
        row["val_loss"] = finite(loss, "the merged model, on validation samples,")
        row |= {f"val_{name}": value for name, value in metrics.items()}
    row["evaluate_s"] = timed.seconds
    return row


# ------------------------------------------------------------- the loop over rounds


def start(fed, x):
    """The state before round 1, from the initial vector ``x (P,)``: all that a checkpoint holds.

    It is a nested dict of tensors and numbers:

    * ``x (P,)`` and ``mask (Q,)``: the model; ``strategy``, ``pruner``, ``weighting`` and
      ``contribution``: states of these parts; ``now``: virtual time in seconds;
    * ``sent (Q,)``: the mask of the last model message; ``changed``: the first round of the present
      mask; ``held (N,)``: the last round of each client; ``losses (N,)``: its last training loss;
    * ``previous (P,)``: the model of the round before, for faults that replay it;
    * ``clients`` and ``grown (Q,)``: see ``fedmpi.server.client_states``;
    * ``flight``: clients at work between two rounds, see ``fedmpi.server.asynchronous``.
    """
    gen = stream(fed.seed, Purpose.MASK)
    pruner, mask = fed.pruner.init(fed.layout, x, Round(0, fed.rounds), gen)
    if not fed.pruner.residuals:
        x = served(x, fed.layout.support(mask), fed.layout)
    N = len(fed.sizes)
    state = {
        "x": x,
        "mask": mask,
        "sent": torch.zeros_like(mask),
        "changed": 1,
        "held": torch.zeros(N, dtype=torch.int64),
        "strategy": fed.strategy.init(fed.layout),
        "pruner": pruner,
        "weighting": fed.weighting.init(fed.sizes),
        "now": 0.0,
        "losses": torch.full((N,), torch.nan, dtype=torch.float64),
        "contribution": {label: part.init(fed.sizes) for label, part in fed.contributions.items()},
    }
    if fed.stale:
        state["previous"] = torch.zeros_like(x)
    if fed.kept_fields:
        state["clients"] = {}
        state["grown"] = torch.zeros(fed.layout.Q, dtype=torch.int32)
    if fed.timing.buffer:
        state["flight"] = asynchronous.nobody(fed.timing.concurrency or fed.cohort)
    return state


def simulate(fed, state, store, first, last, *, save_every=0, keep=2, on_round=lambda row: None):
    """Play rounds ``first`` to ``last``; returns the state after the last.

    A checkpoint is saved every ``save_every`` rounds; with 0, after each round that ends SAVED_S
    after the last checkpoint, so that saving takes no part of short rounds. ``keep`` checkpoints
    stay. ``on_round(row)`` hears of each round.

    A round is evaluated, recorded and saved while clients train in the next one. Its row is written
    before its checkpoint: a run killed between the two plays the round again, to the same bits. A
    run that is asked to stop, or loses a rank, saves its last whole round.
    """
    if client_states.spills(fed.kept_fields, fed.layout, len(fed.sizes)):
        fed = fed._replace(shelf=store.shelf)
    ledger = Ledger(fed.shelf, store, first, last, save_every, keep, on_round)
    owed = iter(())
    try:
        for t in range(first, last + 1):
            if name := fed.transport.asked():
                raise Stopped(f"asked to stop by {name}")
            played = play(fed._replace(meanwhile=owed), state, t)
            finish(owed)
            state = played.state
            owed = ledger.settle(played, t)
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

    def settle(self, played, t):
        """A generator of slices of work: evaluate round ``t``, write its row, save it if due."""
        row = played.row | (yield from played.evaluation)
        begin = time.perf_counter()
        # The row first: a killed run plays a round without a checkpoint again.
        self.store.append(row | record.stored(self.writing_s), played.clients, played.own)
        self.written = t, played.state
        if self._is_due(t, begin):
            self._save(played.state, t, begin)
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


def play_round(fed, state, t):
    """``(state after round t, row, client rows)``: the round, evaluated at once."""
    played = play(fed, state, t)
    row = played.row | finish(played.evaluation) | record.stored(0.0)
    return played.state, row, played.clients


def saved_state(state):
    """A run's state, as a checkpoint holds it."""
    if "clients" not in state:
        return state
    return state | {"clients": client_states.as_dict(state["clients"])}


def loaded_state(state):
    """A run's state from a checkpoint."""
    if "clients" not in state:
        return state
    return state | {"clients": client_states.from_dict(state["clients"])}
