"""Laws of strategies."""

import copy

import torch

from fedmpi import catalog
from fedmpi.compute.coalitions import coalition_models
from fedmpi.laws.hold import hold, hold_equal, near
from fedmpi.laws.samples import random_updates, small_layout
from fedmpi.plugins.spec import make
from fedmpi.server.pieces import part_merger

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
COALITIONS = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
# Values that are merged at a time by a strategy that is ``in_pieces``.
PIECE = 11
# Columns of updates with a client a row.
BY_CLIENT = ("U", "B", "n", "clients", "steps", "travelled")


def strategy(spec):
    """The laws of merging, with and without masks of the clients' own."""
    part = make(catalog.STRATEGIES, spec)
    layout, x = small_layout()
    mask = layout.full_mask()
    # A pruned weight here and there, so that the support is not everything.
    mask[::3] = False
    for own in (False, True):
        updates = sample(part, layout, mask, own=own)
        _check_merge(part, layout, x, updates)
        _check_order(part, layout, x, updates)
        if part.linear:
            _check_linear(part, layout, x, updates)
    _check_stillness(part, layout, x, mask)
    if part.in_pieces:
        _check_in_pieces(part, layout, x, mask)


def sample(part, layout, mask, clients=3, own=False):
    """Updates with all fields of the strategy."""
    updates = random_updates(layout, mask, clients, own=own, of=part)
    # Only such a strategy trains on the server before the clients.
    if part.before is None:
        return updates
    mean = updates.U.mean(dim=0)
    return updates._replace(server_update=mean)


def _merged(part, layout, x, updates, weights=WEIGHTS):
    """The model (P,) after the first merge."""
    state = part.init(layout)
    _, merged = part.merge(state, x, updates, weights)
    return merged


def _check_merge(part, layout, x, updates):
    x_before = x.clone()
    updates_before = copy.deepcopy(updates)
    merged = _merged(part, layout, x, updates)
    hold_equal(x, x_before, "merge wrote to x")
    hold_equal(updates.U, updates_before.U, "merge wrote to the updates")
    # These are pruned weights, and padding.
    outside = torch.ones(layout.P, dtype=torch.bool)
    outside[updates.support] = False
    moved = merged[outside]
    unmoved = x[outside]
    hold_equal(moved, unmoved, "an entry outside the support moved")


def _check_order(part, layout, x, updates):
    """The clients' order in the cohort does not matter, but for rounding."""
    merged = _merged(part, layout, x, updates)
    order = torch.tensor([2, 0, 1])
    shuffled = _reordered(updates, order)
    weights = WEIGHTS[order]
    permuted = _merged(part, layout, x, shuffled, weights)
    near(merged, permuted, "clients in another order make another model")


def _reordered(updates, order):
    """The updates with their clients in another ``order (C,)``."""
    columns = {}
    for name in BY_CLIENT:
        column = getattr(updates, name)
        if column is not None:
            columns[name] = column[order]
    parts = {}
    for name, rows in updates.parts.items():
        # A list holds tensors of different shapes.
        if isinstance(rows, torch.Tensor):
            parts[name] = rows[order]
        else:
            parts[name] = [rows[n] for n in order]
    return updates._replace(parts=parts, **columns)


def _check_linear(part, layout, x, updates):
    """Many coalitions at once make the same models as one merge after the other."""
    state = {}
    for name, tensor in part.init(layout).items():
        # As after some rounds.
        state[name] = torch.rand_like(tensor)
    one_by_one = part._replace(linear=False)
    inputs = (state, x, updates, WEIGHTS, COALITIONS)
    together = coalition_models(part, *inputs)
    apart = coalition_models(one_by_one, *inputs)
    near(together, apart, "a linear merge makes other models of many coalitions at once")
    # The last coalition is empty. A state may move the model by itself, a momentum for instance.
    of_nobody = together[-1]
    may_move = bool(state)
    is_still = may_move or torch.equal(of_nobody, x)
    hold(is_still, "nobody's merge moved the model")


def _check_in_pieces(part, layout, x, mask):
    """One piece after the other makes the model and the state of the whole, to the bits."""
    updates = sample(part, layout, mask, clients=1)
    state = {}
    for name, tensor in part.init(layout).items():
        state[name] = torch.rand_like(tensor)
    one = torch.ones(1, dtype=torch.float64)
    whole_state, whole = part.merge(state, x, updates, one)
    total = updates._replace(places=layout.compact(mask))
    merged = torch.empty_like(x)
    merged_state = {name: torch.empty_like(tensor) for name, tensor in state.items()}
    merge_part = part_merger(part.merge, layout.R, state, x, total, merged_state, merged)
    for first in range(0, len(total.places), PIECE):
        merge_part(first, updates.U[0, first: first + PIECE])
    hold_equal(merged, whole, "pieces of the vector make another model than the whole")
    for name, tensor in whole_state.items():
        hold_equal(merged_state[name], tensor, f"pieces make another {name} than the whole")


def _check_stillness(part, layout, x, mask):
    """Updates of 0 leave a fresh model where it is."""
    updates = sample(part, layout, mask)
    no_totals = {}
    for name, tensor in updates.totals.items():
        no_totals[name] = torch.zeros_like(tensor)
    no_move = torch.zeros_like(updates.U)
    still = updates._replace(U=no_move, totals=no_totals)
    merged = _merged(part, layout, x, still)
    hold_equal(merged, x, "updates of 0 moved the model")


def mean_of_equals(spec):
    """The first merge of equal updates is that update; adaptive servers do not keep this law."""
    part = make(catalog.STRATEGIES, spec)
    layout, x = small_layout()
    # Sizes and steps are equal as well: some strategies weigh by them.
    mask = layout.full_mask()
    row = sample(part, layout, mask, clients=1)
    columns = {}
    for name in ("n", "steps", "travelled"):
        column = getattr(row, name)
        if column is not None:
            columns[name] = column.repeat(3)
    rows = row.U.repeat(3, 1)
    numbers = torch.arange(3)
    equal = row._replace(U=rows, clients=numbers, **columns)
    merged = _merged(part, layout, x, equal)
    whole_move = merged - x
    move = whole_move[row.support]
    update = row.U[0]
    near(move, update, "three equal updates do not make that update")
