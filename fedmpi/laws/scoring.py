"""Laws of contributions and weightings."""

import copy

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.core.parts import Cohort, Facts, Round
from fedmpi.laws.hold import hold, hold_all, hold_equal, hold_type, near, same, twice
from fedmpi.laws.samples import Additive, random_updates, small_network, small_task
from fedmpi.plugins.spec import make

SIZES = torch.tensor([10., 40., 20., 30., 5.], dtype=torch.float64)
# The clients of one round after the other.
COHORTS = ([0, 1, 2, 3, 4], [0, 1, 2], [1, 3, 4], [2], [0, 1, 2, 3, 4])
# Clients and their scores, likewise.
WEIGHED = (
    ([0, 1, 2], [.5, -.2, .1]),
    ([1, 3, 4], [-1., -2., -3.]),
    ([0, 1, 2, 3, 4], [0., 0., 0., 0., 0.]),
    ([2], [7.]),
    ([4, 0, 3], [1e6, -1e6, 1e-9]),
    ([0, 1, 2], [2., 2., 2.]),
)


def contribution(spec):
    """Finite float64 scores and errors, inputs only read, the same for the same generator.

    In every cohort.
    """
    part = make(catalog.CONTRIBUTIONS, spec)
    network = small_network()
    state = part.init(SIZES)
    for t, clients in enumerate(COHORTS, start=1):
        cohort = _cohort(part, network, clients, t)
        state = _check_score(part, state, cohort, t)


def _cohort(part, network, numbers, t):
    """A cohort of the clients ``numbers`` in round t; in round 2 with masks of their own."""
    _, layout, x = network
    C = len(numbers)
    facts = Facts(layout, largest=C)
    refused = list(part.refuses(facts))
    hold(not refused, f"a cohort of {C} is refused: {refused}")
    clients = torch.tensor(numbers)
    n = SIZES[clients]
    has_own_masks = t == 2
    mask = layout.full_mask()
    updates = random_updates(layout, mask, C, own=has_own_masks, seed=t)
    updates = updates._replace(n=n, clients=clients)
    shares = n / n.sum()
    reports = [_report(part, client, network) for client in numbers]
    now = Round(t, 5)
    return Cohort(clients, updates, now, shares, x.clone(), layout, reports)


def _report(part, client, network):
    if part.report is None:
        return {}
    return part.report(small_task(client, network))


def _check_score(part, state, cohort, t):
    """The state after a lawful round."""
    state_before = copy.deepcopy(state)
    cohort_before = copy.deepcopy(cohort)
    utility = Additive(cohort.clients, cohort.layout)

    def score():
        gen = np.random.default_rng(t)
        return part.score(state, cohort, utility, gen)

    scores, again = twice(score)
    wrote = "score wrote to what it was given"
    hold(same(state_before, state), wrote)
    hold_equal(cohort.updates.U, cohort_before.updates.U, wrote)
    hold_equal(cohort.x, cohort_before.x, wrote)
    phi = scores.phi
    shape = cohort.clients.shape
    hold_type(phi, shape, torch.float64, "phi is not (C,) float64")
    hold_all(phi.isfinite(), f"scores are not finite: {phi}")
    differ = "the same generator made other scores"
    hold_equal(phi, again.phi, differ)
    hold(same(scores.state, again.state), differ)
    error = scores.error
    if error is not None:
        hold(error.shape == shape, "a standard error < 0")
        hold_all(error >= 0, "a standard error < 0")
    return scores.state


def weighting(spec):
    """Weights >= 0 of sum 1 for any finite scores, and in any order of rows.

    Absent clients keep their state.
    """
    part = make(catalog.WEIGHTINGS, spec)
    state = part.init(SIZES)
    for t, (numbers, scores) in enumerate(WEIGHED, start=1):
        phi = torch.tensor(scores, dtype=torch.float64)
        clients = torch.tensor(numbers)
        now = Round(t, 10)
        # Weightings see neither updates nor the model.
        cohort = Cohort(clients, None, now, None, None, None)
        state = _check_weigh(part, state, phi, cohort)


def _check_weigh(part, state, phi, cohort):
    """The state after a lawful round."""
    before = copy.deepcopy(state)
    after, weights = part.weigh(state, phi, cohort)
    hold(same(before, state), "weigh wrote to its state")
    hold_type(weights, phi.shape, torch.float64, "weights are not (C,) float64")
    total = float(weights.sum())
    broken = f"weights {weights} sum to {total}"
    hold_all(weights >= 0, broken)
    hold(abs(total - 1) < 1e-12, broken)
    # Rows are in any order: only the numbers of the clients count.
    backwards = cohort.clients.flip(0)
    reversed_cohort = cohort._replace(clients=backwards)
    reversed_phi = phi.flip(0)
    _, reversed_weights = part.weigh(state, reversed_phi, reversed_cohort)
    broken = "clients in another order get other weights"
    near(reversed_weights, weights.flip(0), broken, 1e-9, 1e-12)
    _check_absent(before, after, cohort.clients)
    return after


def _check_absent(before, after, clients):
    """The state of clients outside the cohort stays, weights up to a common factor."""
    absent = torch.ones(len(SIZES), dtype=torch.bool)
    absent[clients] = False
    if not absent.any():
        return
    for name, tensor in after.items():
        old = before[name][absent].double()
        new = tensor[absent].double()
        # A weighting may normalise all weights anew.
        factor = 1.0
        if name == "weights":
            factor = float(old.sum() / new.sum())
        near(new * factor, old, f"{name} of clients that took no part changed", 1e-12, 0)
