"""Laws of contributions and weightings."""

import copy

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.core.parts import Cohort, Facts, Round
from fedmpi.laws.hold import hold, near, same
from fedmpi.laws.samples import Additive, random_updates, small_network, small_task
from fedmpi.plugins.spec import make

SIZES = torch.tensor([10., 40., 20., 30., 5.], dtype=torch.float64)
COHORTS = ([0, 1, 2, 3, 4], [0, 1, 2], [1, 3, 4], [2], [0, 1, 2, 3, 4])
WEIGHED = (([0, 1, 2], [.5, -.2, .1]), ([1, 3, 4], [-1., -2., -3.]),
           ([0, 1, 2, 3, 4], [0., 0., 0., 0., 0.]), ([2], [7.]), ([4, 0, 3], [1e6, -1e6, 1e-9]),
           ([0, 1, 2], [2., 2., 2.]))


def contribution(spec):
    """Finite float64 scores and errors, inputs only read, the same for the same generator; for
    every cohort."""
    part = make(catalog.CONTRIBUTIONS, spec)
    network = small_network()
    state = part.init(SIZES)
    for t, who in enumerate(COHORTS, start=1):
        cohort = _cohort(part, network, who, t)
        state = _check_score(part, state, cohort, t)


def _cohort(part, network, who, t):
    """A cohort of the clients ``who`` in round t; in round 2 with masks of their own."""
    _, layout, x = network
    clients = torch.tensor(who)
    updates = random_updates(layout, layout.full_mask(), len(who), own=t == 2, seed=t)
    updates = updates._replace(n=SIZES[clients], clients=clients)
    shares = SIZES[clients] / SIZES[clients].sum()
    refused = list(part.refuses(Facts(layout, largest=len(who))))
    hold(not refused, f"a cohort of {len(who)} is refused: {refused}")
    reports = [{} if part.report is None else part.report(small_task(n, network)) for n in who]
    return Cohort(clients, updates, Round(t, 5), shares, x.clone(), layout, reports)


def _check_score(part, state, cohort, t):
    """The state after a round that keeps the laws."""
    before, given = copy.deepcopy(state), copy.deepcopy(cohort)
    utility = Additive(cohort.clients, cohort.layout)
    found, again = (part.score(state, cohort, utility, np.random.default_rng(t)) for _ in range(2))
    unwritten = same(before, state) and torch.equal(cohort.updates.U, given.updates.U)
    hold(unwritten and torch.equal(cohort.x, given.x), "score wrote to what it was given")
    C = len(cohort.clients)
    hold(found.phi.dtype == torch.float64 and found.phi.shape == (C,), "phi is not (C,) float64")
    hold(bool(found.phi.isfinite().all()), f"scores are not finite: {found.phi}")
    hold(torch.equal(found.phi, again.phi) and same(found.state, again.state),
         "the same generator made other scores")
    if found.error is not None:
        hold(found.error.shape == (C,) and bool((found.error >= 0).all()), "a standard error < 0")
    return found.state


def weighting(spec):
    """Weights >= 0 of sum 1 for any finite scores, no trace on absent clients, the same for
    every order of rows."""
    part = make(catalog.WEIGHTINGS, spec)
    state = part.init(SIZES)
    for t, (who, phi) in enumerate(WEIGHED, start=1):
        clients, phi = torch.tensor(who), torch.tensor(phi, dtype=torch.float64)
        cohort = Cohort(clients, None, Round(t, 10), None, None, None)
        state = _check_weigh(part, state, phi, cohort)


def _check_weigh(part, state, phi, cohort):
    """The state after a round that keeps the laws."""
    before = copy.deepcopy(state)
    after, weights = part.weigh(state, phi, cohort)
    hold(same(before, state), "weigh wrote to its state")
    hold(weights.dtype == torch.float64 and weights.shape == phi.shape, "weights are not (C,) float64")
    total = float(weights.sum())
    hold(bool((weights >= 0).all()) and abs(total - 1) < 1e-12, f"weights {weights} sum to {total}")
    turned = cohort._replace(clients=cohort.clients.flip(0))
    _, flipped = part.weigh(state, phi.flip(0), turned)
    near(flipped, weights.flip(0), "clients in another order get other weights", 1e-9, 1e-12)
    _check_absent(before, after, cohort.clients)
    return after


def _check_absent(before, after, clients):
    """What is remembered of clients that took no part stays, weights up to a common factor."""
    away = torch.ones(len(SIZES), dtype=torch.bool)
    away[clients] = False
    if not away.any():
        return
    for name, tensor in after.items():
        old, new = before[name][away].double(), tensor[away].double()
        factor = float(old.sum() / new.sum()) if name == "weights" else 1.0
        near(new * factor, old, f"{name} of clients that took no part changed", 1e-12, 0)
