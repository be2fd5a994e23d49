"""The answers of a round become the next model: scored, weighed, merged, pruned and grown."""

from typing import NamedTuple

import torch

from fedmpi.client.stats import Stats
from fedmpi.core.parts import Cohort, Replies, Round
from fedmpi.core.rng import Purpose, stream
from fedmpi.server.fold import stack, summed
from fedmpi.server.model import model_on, model_sent
from fedmpi.server.pieces import merged_in_pieces, merges_in_pieces
from fedmpi.server.recruit import present
from fedmpi.server.score import score
from fedmpi.wire.feedback import carried


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


def aggregate(run, state, t, support, got, laps, lab, server_update=None):
    """``Aggregated``: score the answers of ``got``, weigh them, merge them, then prune and grow.

    ``support (K,)`` is the server's. ``server_update (K,)`` is the update of the server's own
    training, if the strategy has one.
    """
    replies = [got.answers[row] for row in got.merged_rows.tolist()]
    updates = updates_of(run, t, support, got, replies, server_update)
    total = whole = None
    # Workers have added updates up if the merge needs no single ones.
    if run.sums_on_workers:
        whole = float(got.shares[got.merged_rows].sum())
    if run.sums_on_workers and not merges_in_pieces(run, support):
        total = summed(run, updates, whole, support)
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

    # The merge may overwrite vectors that no other part of the state has.
    scored_state = state | {"weighting": weighting, "contribution": scored.states}
    strategy, x = merge(run, scored_state, updates, total, whole, weights, laps, lab)
    merged = x
    if run.pruner.keeps_pruned_values:
        # This pruner keeps values of pruned weights; the model has none.
        merged = model_on(x, updates.places, run.layout)
    recorded = own_columns(run, strategy, updates, total)

    # Prune and grow; the rest of the state follows.
    for_pruner = replies_for_pruner(run, updates, weights, weighting, replies)
    on_support = updates.places is support
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
        server_update = carried(server_update, support, updates.places, run.layout.P)
        updates = updates._replace(server_update=server_update)
    return updates


def merge(run, state, updates, total, whole, weights, laps, lab):
    """``(strategy's state, x (P,))`` after the merge, and after the server's own work on it.

    ``whole`` is the sum of the clients' shares in the workers' sums, or None if they add nothing
    up. ``total`` holds these sums in one row; None: they are still with the workers.
    """
    strategy, x = state["strategy"], state["x"]
    if whole is None:
        strategy, x = run.strategy.merge(strategy, x, updates, weights)
    elif total is None:
        strategy, x = merged_in_pieces(run, state, updates, whole)
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
        support = layout.compact(mask)
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
