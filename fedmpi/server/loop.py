"""The loop over rounds: each is evaluated, recorded and saved while the next one trains."""

import time
from collections import deque
from functools import partial

from fedmpi.core.errors import FedError, Stopped
from fedmpi.server import client_states, record
from fedmpi.server.round import run_round
from fedmpi.server.slices import finish
from fedmpi.server.run_state import saved_state

# Seconds from one checkpoint to the next, unless the user counts in rounds.
SAVED_S = 1.0


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
            now = run._replace(meanwhile=owed, may_overwrite=partial(ledger.has_saved, t - 1))
            result = run_round(now, state, t)
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

    def has_saved(self, t):
        """Whether round ``t`` is written and saved, so that nobody needs the state after it."""
        written_t, _ = self.written
        if not written_t == self.saved_t == t:
            return False
        # A thread may still read the state.
        self.store.settle()
        return True

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
        # Rank 0 would hold its vectors until the next round is written.
        self.written = t, None
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
