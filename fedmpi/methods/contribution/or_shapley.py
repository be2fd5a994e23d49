"""One-round reconstruction: the Shapley value of the whole training at once (OR).

    A_n = sum over rounds of w_n^t Delta_n^t,    x_S = x_first + sum_{n in S} A_n / sum_{n in S} w_n

phi is the Shapley value of the game v(S) = utility of x_S (Song et al., IEEE Big Data 2019).

Utilities are accuracies by default. A client's own steps, added up over rounds, overshoot the mean
of all clients: a client with clean labels ends confident and far off, at a huge loss, one with
random labels goes nowhere; by ``of=loss`` clients are then ranked in reverse, while accuracy still
tells them. With one small step a round both agree with the exact values of the rounds. If the
merge is no plain mean (median, Krum, momentum, moving masks), everybody's x_S is not the trained
model.

w are the clients' shares in the cohort before the round was judged, in x_S of the evaluated
round. Coalitions never train: models are rebuilt from updates of all clients' training. If
everybody takes part with fixed shares, x_S is the paper's, and everybody's x_S is the trained
model.

The game is played among the cohort of the last round, and of each ``every``-th for ``every`` > 0;
all scores are 0 before and between. Clients outside the cohort get no score then and are in no
coalition, whatever they did before; a newcomer has the update of its one round alone.

Costs 2^C utilities, refused above ``limit`` clients, in evaluated rounds only; and a state of N
models, float32, in memory and in every checkpoint. Blind spots: those of the exact value; the
reconstruction drifts with the number of rounds; entries outside a client's own mask count as
updates of 0. Sees: the updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import (Of, SEES, at_most, by_id, check_limit, check_of,
                                              exact)
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

    def due(now):
        """Whether the game is played after this round."""
        if now.t == now.rounds:
            return True
        return every > 0 and now.t % every == 0

    def score(state, cohort, utility, gen):
        """The cohort's values, or zeros, and the sums with this round's updates."""
        state = accumulated(state, cohort)
        C = len(cohort.clients)
        if not due(cohort.now):
            return Scores(torch.zeros(C, dtype=torch.float64), state)
        utility_of_rebuilt = utility.on(rebuilt(state, cohort), state["first"])
        v, rank = by_id(cohort, utility_of_rebuilt, of)
        return Scores(exact(v, C)[rank], state)

    def notes(facts):
        first = every or facts.rounds
        if facts.scored and first >= facts.rounds:
            yield ("it scores in the last round only, too late for any weight in the merge; give "
                   f"every, below the {facts.rounds} rounds")

    instead = "use gtg-shapley, a smaller cohort or a larger limit"
    return Contribution(
        score,
        init=init,
        validated=True,
        cumulative=True,
        sees=SEES,
        notes=notes,
        planned=due,
        refuses=at_most(limit, instead),
    )


def init(n):
    """The state before round 1, without a model: the layout is not known yet."""
    N = len(n)
    return {"sum": torch.zeros(N, 0), "first": torch.zeros(0)}


def accumulated(state, cohort):
    """The state after a cohort's updates.

    ``sum (N, P) float32`` are the A_n, ``first (P,)`` is the model before round 1."""
    total = state["sum"]
    first = state["first"]
    P = len(cohort.x)
    if not len(first):
        total = torch.zeros(len(total), P)
        first = cohort.x.clone()
    updates = cohort.updates
    weighted = torch.zeros(len(cohort.clients), P)
    shares = cohort.shares.float()[:, None]
    columns = updates.support.long()
    weighted[:, columns] = updates.U * shares
    total = total.index_add(0, cohort.clients, weighted)
    return {"sum": total, "first": first}


def rebuilt(state, cohort):
    """``Updates`` of the cohort's rows on all P positions; their mean by shares makes x_S."""
    A = state["sum"][cohort.clients]
    shares = cohort.shares.float().clamp(min=1e-12)
    # The mean of coalitions multiplies by them again.
    U = A / shares[:, None]
    P = U.shape[1]
    everywhere = torch.arange(P, dtype=torch.int32)
    return Updates(
        U,
        B=None,
        places=everywhere,
        n=cohort.updates.n,
        trained=cohort.layout.R,
    )
