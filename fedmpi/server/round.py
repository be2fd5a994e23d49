"""One round: models out, answers in, scores, weights, merge, pruning; then its record."""

from typing import Iterator, NamedTuple

from fedmpi.core.parts import Round
from fedmpi.server import asynchronous, client_states, own_accuracy, record
from fedmpi.server.aggregate import aggregate, nothing
from fedmpi.server.answers import Outcome
from fedmpi.server.evaluation import evaluated, evaluates
from fedmpi.server.exchange import remembered
from fedmpi.server.lab import round_lab, update_beside
from fedmpi.server.model import mask_counted, model_on, model_sent
from fedmpi.server.recruit import recruit
from fedmpi.server.slices import Slices


class RoundResult(NamedTuple):
    """A round once its model stands; the evaluation is still to come."""

    state: dict                   # after the round
    row: dict                     # of /rounds, the columns of the evaluation still missing
    clients: dict                 # rows of /clients
    evaluation: Iterator          # slices of work, which end in the missing columns
    own: dict | None = None       # rows of /own, if clients were tested on their own test parts


def run_round(run, state, t):
    """``RoundResult``: clients train in round ``t``, estimators score them, the server merges."""
    laps = record.Clock(run.transport)
    mask = state["mask"]
    support = run.layout.compact(mask)
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
