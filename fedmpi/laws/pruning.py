"""Laws of pruners, in rounds of the real engine."""

import copy

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.core.parts import Round
from fedmpi.laws.engine import assembled, run_rounds
from fedmpi.laws.hold import hold, hold_equal, hold_type, twice
from fedmpi.plugins.spec import make


def pruner(spec, rounds=8, more=None):
    """Exact counts, no mask on padding, inputs only read, the same mask of the same generator.

    ``more(layout, now, mask, new_mask)`` holds each change of the mask, in round ``now.t``, to
    further laws.
    """
    run, state = assembled(pruner=spec, rounds=rounds + 2)
    part = run.pruner
    first = _first_mask(run, state, spec)

    def evolve(state, mask, x, replies, now, gen):
        mask_before = mask.clone()
        x_before = x.clone()
        twin_gen = copy.deepcopy(gen)
        evolved = part.evolve(state, mask, x, replies, now, gen)
        new_mask = evolved[1]
        hold_equal(mask_before, mask, "evolve wrote to the mask or to x")
        hold_equal(x_before, x, "evolve wrote to the mask or to x")
        # After the checks above: the second call starts from the same inputs.
        again = part.evolve(state, mask, x, replies, now, twin_gen)
        hold_equal(new_mask, again[1], "the same generator made another mask")
        _check_mask(part, run.layout, first, new_mask)
        if more is not None:
            more(run.layout, now, mask, new_mask)
        return evolved

    watched = run._replace(pruner=part._replace(evolve=evolve))
    states, _ = run_rounds(watched, state, rounds)
    _check_pruned(part, run.layout, states)


def _first_mask(run, state, spec):
    """The mask before round 1, the same for the same generator."""

    def first():
        part = make(catalog.PRUNERS, spec)
        x = state["x"].clone()
        before_all = Round(0, 10)
        gen = np.random.default_rng(3)
        _, mask = part.init(run.layout, x, before_all, gen)
        return mask

    mask, again = twice(first)
    hold_equal(mask, again, "the same generator made another first mask")
    return mask


def _check_mask(part, layout, first, mask):
    Q = layout.Q
    hold_type(mask, (Q,), torch.bool, "a mask is not (Q,) bool")
    is_padding = ~layout.real[:Q]
    on_padding = mask[is_padding]
    hold(not on_padding.any(), "a mask is True on padding")
    hold(bool(mask.any()), "a mask keeps nothing")
    # Masks of the clients' own may be smaller.
    if part.exact and part.masks is None:
        kept = int(mask.sum())
        wanted = int(first.sum())
        hold(kept == wanted, f"{kept} weights are kept, not {wanted}, though the pruner is exact")


def _check_pruned(part, layout, states):
    """After every round the server's vector is 0 on pruned weights.

    A pruner with residuals keeps their last values instead.
    """
    for state in states:
        x = state["x"]
        is_pruned = ~state["mask"]
        prunable = x[: layout.Q]
        pruned = prunable[is_pruned]
        hold(part.keeps_pruned_values or not pruned.any(), "a pruned weight is not 0")
