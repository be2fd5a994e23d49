"""One-round reconstruction: the Shapley value of the whole training at once (OR; Song et al., IEEE Big Data 2019).

    A_n = sum over rounds of w_n^t Delta_n^t,      x_S = x_first + sum_{n in S} A_n / sum_{n in S} w_n

Utilities are accuracies by default. A client's own steps, added up over rounds, overshoot what the mean of all did: a
client with clean labels ends confident and far off, at a huge loss, one with random labels goes nowhere; by ``of=loss``
clients are then ranked in reverse, while accuracy still tells them. With one small step a round both agree with the
exact values of the rounds. Where the merge is no plain mean (median, Krum, momentum, masks that move) the model of
everybody is not the trained one.

w are the clients' shares in the cohort before the round was judged, in x_S those of the round of evaluation. What a
coalition would have trained is never seen: models are rebuilt from updates that all clients' training led to. Where
everybody takes part with fixed shares x_S is the paper's, and that of everybody is the trained model.

The game is played among the cohort of the last round, and of each ``every``-th where that is not 0; all scores are 0
before and between. Clients outside that cohort get no score there and are in no coalition, whatever they did before; a
client that is there for the first time has the update of that round alone.

Costs 2^C utilities, refused above ``limit`` clients, in those rounds only; and a state of N models, float32, in memory
and in every checkpoint. Blind spots: those of the exact value; the reconstruction drifts with the number of rounds;
masks that clients hold for themselves are taken as updates of 0. Sees: the updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, SEES, at_most, by_id, check_limit, check_of,
                                              powerset, shapley_value)
from fedmpi.core.parts import Contribution, Scores, Updates


def or_shapley(of: Of = "accuracy", every: int = 0, limit: int = 16):
    """Shapley values of models rebuilt from all rounds' updates.

    Paper: Song, Tong and Wei 2019, "Profit Allocation for Federated Learning", IEEE Big Data 2019.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    Example: fedmpi train --contribution or-shapley:every=5 --clients 6
    """
    check_of(of)
    check_limit(limit)
    if every < 0:
        raise ValueError(f"every must be >= 0 rounds (0: the last only), got {every}")

    def due(schedule):
        return schedule.t == schedule.rounds or bool(every) and schedule.t % every == 0

    def score(state, cohort, utility, gen):
        state = accumulated(state, cohort)
        if not due(cohort.schedule):
            return Scores(torch.zeros(len(cohort.clients), dtype=torch.float64), state)
        coalitions = powerset(len(cohort.clients))
        v, rank = by_id(cohort, utility.on(rebuilt(state, cohort), state["first"]), of)
        return Scores(shapley_value(coalitions, v(coalitions))[rank], state)

    def notes(facts):
        first = every or facts.rounds
        if facts.scored and first >= facts.rounds:
            yield ("it scores in the last round only, too late for any weight in the merge; give every, "
                   f"below the {facts.rounds} rounds")

    return Contribution(score, init=lambda n: {"sum": torch.zeros(len(n), 0), "first": torch.zeros(0)},
                        validated=True, cumulative=True, sees=SEES, notes=notes, planned=due,
                        refuses=at_most(limit, "use gtg-shapley, a smaller cohort or a larger limit"))


def accumulated(state, cohort):
    """The state after a cohort's updates: ``sum (N, P) float32`` of weighted ones, ``first (P,)`` the first model."""
    updates, total, first = cohort.updates, state["sum"], state["first"]
    if not len(first):
        total, first = torch.zeros(len(total), len(cohort.x)), cohort.x.clone()
    weighted = torch.zeros(len(cohort.clients), len(cohort.x))
    weighted[:, updates.support.long()] = updates.U * cohort.shares.float()[:, None]
    return {"sum": total.index_add(0, cohort.clients, weighted), "first": first}


def rebuilt(state, cohort):
    """``Updates`` of the cohort's rows on all P positions, which a mean by the cohort's shares makes ``x_S``."""
    U = state["sum"][cohort.clients] / cohort.shares.float().clamp(min=1e-12)[:, None]
    return Updates(U, None, torch.arange(U.shape[1], dtype=torch.int32), cohort.updates.n, cohort.layout.R)
