"""Laws of pruners, in rounds of the real engine."""

import copy

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.core.parts import Round
from fedmpi.laws.engine import assembled, play
from fedmpi.laws.hold import hold
from fedmpi.plugins.spec import make


def pruner(spec, rounds=8, more=None):
    """Exact counts, no mask on padding, inputs that are only read, and the same mask of the
    same generator.

    ``more(layout, now, mask, new_mask)`` holds each change of the mask, in round ``now.t``, to
    further laws.
    """
    fed, state = assembled(pruner=spec, rounds=rounds + 2)
    part = fed.pruner
    first = _first_mask(fed, state, spec)

    def evolve(state, mask, x, replies, schedule, gen):
        kept, vector, twin = mask.clone(), x.clone(), copy.deepcopy(gen)
        evolved = part.evolve(state, mask, x, replies, schedule, gen)
        hold(torch.equal(kept, mask) and torch.equal(vector, x), "evolve wrote to the mask or to x")
        again = part.evolve(state, mask, x, replies, schedule, twin)
        hold(torch.equal(evolved[1], again[1]), "the same generator made another mask")
        _check_mask(part, fed.layout, first, evolved[1])
        if more is not None:
            more(fed.layout, schedule, mask, evolved[1])
        return evolved

    states, _ = play(fed._replace(pruner=part._replace(evolve=evolve)), state, rounds)
    _check_pruned(part, fed.layout, states)


def _first_mask(fed, state, spec):
    """The mask before round 1, the same each time that it is drawn with the same generator."""
    masks = []
    for _ in range(2):
        part = make(catalog.PRUNERS, spec)
        gen = np.random.default_rng(3)
        masks.append(part.init(fed.layout, state["x"].clone(), Round(0, 10), gen)[1])
    hold(torch.equal(*masks), "the same generator made another first mask")
    return masks[0]


def _check_mask(part, layout, first, mask):
    hold(mask.dtype == torch.bool and mask.shape == (layout.Q,), "a mask is not (Q,) bool")
    hold(not mask[~layout.real[: layout.Q]].any(), "a mask is True on padding")
    hold(bool(mask.any()), "a mask keeps nothing")
    if part.exact and part.masks is None:
        kept, wanted = int(mask.sum()), int(first.sum())
        hold(kept == wanted, f"{kept} weights are kept, not {wanted}, though the pruner is exact")


def _check_pruned(part, layout, states):
    """After every round the server's vector is 0 on pruned weights, unless it keeps their last
    values."""
    for state in states:
        values = state["x"][: layout.Q][~state["mask"]]
        hold(part.residuals or not values.any(), "a pruned weight is not 0")
