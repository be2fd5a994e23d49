"""Laws of strategies."""

import copy

import torch

from fedmpi import catalog
from fedmpi.compute.coalitions import coalition_models
from fedmpi.laws.hold import hold, near
from fedmpi.laws.samples import random_updates, small_layout
from fedmpi.plugins.spec import make

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def strategy(spec):
    """The laws of merging, with and without masks of the clients' own."""
    part = make(catalog.STRATEGIES, spec)
    layout, x = small_layout()
    mask = layout.full_mask()
    mask[::3] = False
    for own in (False, True):
        updates = sample(part, layout, mask, own=own)
        _check_merge(part, layout, x, updates)
        _check_order(part, layout, x, updates)
        if part.linear:
            _check_linear(part, layout, x, updates)
    _check_stillness(part, layout, x, mask)


def sample(part, layout, mask, clients=3, own=False):
    """Updates with all that the strategy asks for."""
    updates = random_updates(layout, mask, clients, own=own, of=part)
    if part.before is not None:
        updates = updates._replace(root=updates.U.mean(dim=0))
    return updates


def _check_merge(part, layout, x, updates):
    before, given = x.clone(), copy.deepcopy(updates)
    _, merged = part.merge(part.init(layout), x, updates, WEIGHTS)
    hold(torch.equal(x, before), "merge wrote to x")
    hold(torch.equal(updates.U, given.U), "merge wrote to the updates")
    outside = torch.ones(layout.P, dtype=torch.bool)
    outside[updates.support] = False
    hold(torch.equal(merged[outside], x[outside]), "an entry outside the support moved")


def _check_order(part, layout, x, updates):
    """The clients' order in the cohort does not matter, but for rounding."""
    _, merged = part.merge(part.init(layout), x, updates, WEIGHTS)
    order = torch.tensor([2, 0, 1])
    columns = {name: column[order] for name in ("U", "B", "n", "clients", "steps", "travelled")
               if (column := getattr(updates, name)) is not None}
    parts = {name: rows[order] if isinstance(rows, torch.Tensor) else [rows[n] for n in order]
             for name, rows in updates.parts.items()}
    shuffled = updates._replace(parts=parts, **columns)
    _, permuted = part.merge(part.init(layout), x, shuffled, WEIGHTS[order])
    near(merged, permuted, "clients in another order make another model")


def _check_linear(part, layout, x, updates):
    """Many coalitions at once are what one merge after the other makes of them."""
    coalitions = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    state = {name: torch.rand_like(tensor) for name, tensor in part.init(layout).items()}
    together = coalition_models(part, state, x, updates, WEIGHTS, coalitions)
    apart = coalition_models(part._replace(linear=False), state, x, updates, WEIGHTS, coalitions)
    near(together, apart, "a linear merge makes other models of many coalitions at once")
    hold(bool(state) or torch.equal(together[3], x), "nobody's merge moved the model")


def _check_stillness(part, layout, x, mask):
    """Updates of 0 leave a fresh model where it is."""
    updates = sample(part, layout, mask)
    none = {name: torch.zeros_like(tensor) for name, tensor in updates.totals.items()}
    still = updates._replace(U=torch.zeros_like(updates.U), totals=none)
    _, merged = part.merge(part.init(layout), x, still, WEIGHTS)
    hold(torch.equal(merged, x), "updates of 0 moved the model")


def mean_of_equals(spec):
    """What all clients agree on is what the first merge makes; adaptive servers do not keep
    this one."""
    part = make(catalog.STRATEGIES, spec)
    layout, x = small_layout()
    row = sample(part, layout, layout.full_mask(), clients=1)
    columns = {name: getattr(row, name).repeat(3) for name in ("n", "steps", "travelled")
               if getattr(row, name) is not None}
    equal = row._replace(U=row.U.repeat(3, 1), clients=torch.arange(3), **columns)
    _, merged = part.merge(part.init(layout), x, equal, WEIGHTS)
    near((merged - x)[row.support], row.U[0], "three equal updates do not make that update")
