"""Laws that every part of the catalogue obeys, as plain functions of a spec: registering a method is what tests it.

Those that hold for any part at all are in ``fedmpi.laws``; here is what the suite knows besides.
"""

import json

import numpy as np

from fedmpi import catalog, laws
from fedmpi.build.options import DEFAULTS
from fedmpi.build.parts import made
from fedmpi.build.setup import dealt_out
from fedmpi.core.mask import budgets
from fedmpi.laws import merging, pruning
from fedmpi.laws.engine import SMALL, assembled, run_rounds, small
from fedmpi.laws.samples import small_layout
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import make
from fedmpi.server import exchange, fold, loop, recruit
from fedmpi.wire import positions

__all__ = ["DEFAULTS", "SMALL", "assembled", "catalog", "laws", "loop", "make", "run_rounds", "small",
           "small_layout"]
# Their first step is not the mean update: servers that adapt it, or add something to it.
OTHER_STEPS = ("fedadam", "fedyogi", "fedadagrad", "feddyn", "diloco")


def dealt(options):
    """The ``Federation`` of a run's options."""
    return dealt_out(*made(options))[0]


def sampled(run, state, t):
    """The clients that round t asks."""
    return recruit.sample(run, state, t, recruit.look(run, state["now"])[1])[1]


def first_cohort(run, state):
    """``(clients, Updates)`` of a first round that everybody trained."""
    support, clients = run.layout.support(state["mask"]), sampled(run, state, 1)
    _, asks = exchange.announce(run, state, 1, clients)
    answers = exchange.collect(run, asks, support)
    updates = fold.stack(run, answers, support)
    if run.strategy.before is not None:
        updates = updates._replace(server_update=updates.U.mean(dim=0))
    return clients, updates


def frequent(kind, name, every=2):
    """The spec of a method that acts every other round, where it has that option."""
    options = {p.name for p in entry(catalog.KINDS[kind], name).signature.parameters.values()}
    wanted = {"every": every, "sparsity": 0.8} if kind == "pruner" else {}
    return name + ":" * bool(options & set(wanted)) + ",".join(f"{k}={v}" for k, v in wanted.items() if k in options)


# --- positions ---

def check_positions(mask, known=None):
    """A mask comes back, is not written to, and takes hardly more bytes than its bitmap would."""
    before = mask.copy()
    meta, array = positions.encode(mask, known)
    assert array.dtype == np.uint8 and array.nbytes <= -(-len(mask) // 8) + 2 and meta["k"] == mask.sum()
    back = positions.decode(json.loads(json.dumps(meta)), array, len(mask), known)
    assert back.dtype == bool and np.array_equal(back, mask) and np.array_equal(mask, before)


# --- pruners ---

def check_pruner(spec, rounds=8):
    """The laws of pruners; besides, counts that follow from the options, and rounds in which a mask does not move."""
    every = option(spec, "every", 1)
    part = make(catalog.PRUNERS, spec)

    def more(layout, now, mask, new_mask):
        assert_count(part, layout, spec, new_mask)
        if now.t % every:
            assert new_mask is mask

    pruning.pruner(spec, rounds, more)


def assert_count(part, layout, spec, mask):
    """The mask's exact count, or a cap where the count is an outcome."""
    if part.masks is not None:                   # the mask is that of the client pruned least
        return
    if not part.exact:
        assert int(mask.sum()) <= sum(budgets(layout, option(spec, "sparsity", 0.0)))
    else:
        assert int(mask.sum()) == round((1 - option(spec, "sparsity", 0.0)) * layout.num_weights)


def check_pruned_are_zero(spec, rounds=6):
    """After every round the server's vector is 0 on pruned weights, or keeps them for good where it keeps residuals."""
    run, state = assembled(pruner=spec, rounds=rounds + 2)
    states, _ = run_rounds(run, state, rounds)
    pruned = [s["x"][: run.layout.Q][~s["mask"]] for s in states]
    if run.pruner.keeps_pruned_values:
        assert all(bool(values.any()) for values in pruned)
    else:
        assert [int((values != 0).sum()) for values in pruned] == [0] * rounds


def option(spec, name, default):
    """The number that ``spec`` gives to an option."""
    found = dict(item.split("=") for item in spec.partition(":")[2].split(",") if item)
    return type(default)(found.get(name, default))


# --- strategies ---

def check_strategy(spec):
    """The laws of strategies; besides, equal updates make that update."""
    merging.strategy(spec)
    has_update = make(catalog.STRATEGIES, spec).update
    if has_update and spec.partition(":")[0] not in OTHER_STEPS:
        merging.mean_of_equals(spec)
