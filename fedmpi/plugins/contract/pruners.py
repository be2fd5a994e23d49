"""The contract of pruners: masks, and the reports of probes."""

import functools

import numpy as np
import torch

from fedmpi.core.parts import Probe
from fedmpi.plugins.contract.require import (PARTS, check_arrays, check_state, check_tensor,
                                             check_tuple, check_unwritten, in_words, require,
                                             versions, with_functions)


def pruner(part, option):
    """The ``Pruner``, its functions checked."""
    return with_functions(part, {
        "init": _init(part, option),
        "evolve": _evolve(part, option),
        "masks": _masks(part, option),
        "nominal": _nominal(part, option),
        "probe": _probe(part, option),
    })


def _check_mask(mask, layout, option, function):
    """A mask must be bool (Q,), False on padding, and keep something."""
    check_tensor(mask, (layout.Q,), torch.bool, option, f"the mask that {function} returns")
    is_padding = ~layout.real[: layout.Q]
    num_wrong = int(torch.count_nonzero(mask[is_padding]))
    require(not num_wrong, option, f"the mask of {function} to be False on padding",
            f"{num_wrong} entries that are True", "use & layout.full_mask()")
    require(bool(mask.any()), option, f"{function} to keep some weights", "a mask without any",
            "keep one at least")


def _init(part, option):

    def init(layout, x, now, gen):
        answer = part.init(layout, x, now, gen)
        check_tuple(answer, 2, option, "(state, mask) from init")
        state, mask = answer
        check_state(state, option, "init")
        _check_mask(mask, layout, option, "init")
        return answer

    return init


def _evolve(part, option):

    def evolve(state, mask, x, replies, now, gen):
        inputs = {"mask": mask, "x": x, "U": replies.updates.U}
        before = versions(inputs)
        answer = part.evolve(state, mask, x, replies, now, gen)
        check_tuple(answer, 2, option, "(state, mask) from evolve")
        state_after, new_mask = answer
        check_state(state_after, option, "evolve")
        check_unwritten(option, "evolve", inputs, before)
        # The same tensor has been checked before.
        if new_mask is not mask:
            _check_mask(new_mask, replies.layout, option, "evolve")
            _check_count(part, mask, new_mask, option)
        return answer

    return evolve


def _check_count(part, mask, new_mask, option):
    """An exact pruner must keep as many weights as before."""
    if not part.exact:
        return
    kept = int(torch.count_nonzero(new_mask))
    before = int(torch.count_nonzero(mask))
    require(kept == before, option,
            f"evolve to keep {before} weights, since the Pruner is exact", kept,
            "grow as many as are dropped, or return Pruner(..., exact=False)")


def _masks(part, option):

    def masks(state, mask, x, layout, clients):
        own_masks = part.masks(state, mask, x, layout, clients)
        fits = isinstance(own_masks, list) and len(own_masks) == len(clients)
        require(fits, option, f"a list of {len(clients)} masks, one a client, from masks",
                in_words(own_masks), PARTS)
        # Clients may share a mask, which is checked once.
        distinct = {id(own): own for own in own_masks}
        for own in distinct.values():
            _check_mask(own, layout, option, "masks")
            num_beyond = int(torch.count_nonzero(own & ~mask))
            require(not num_beyond, option, "the masks of clients to be subsets of the mask",
                    f"one with {num_beyond} weights beyond it", "use own & mask")
        return own_masks

    return masks


def _nominal(part, option):

    def nominal(state, mask, layout):
        nominal_mask = part.nominal(state, mask, layout)
        _check_mask(nominal_mask, layout, option, "nominal")
        return nominal_mask

    return nominal


def _probe(part, option):

    def probe(task):
        own_probe = part.probe(task)
        require(isinstance(own_probe, Probe), option, "a Probe from probe", in_words(own_probe),
                "return fedmpi.core.parts.Probe(...)")
        report = functools.partial(_reported, own_probe.report, task.layout.Q, option)
        return own_probe._replace(report=report)

    return probe


def _reported(report, Q, option):
    """A probe's arrays; ``index`` must be sorted positions in [0, Q)."""
    arrays = report()
    check_arrays(arrays, option, "what the probe reports")
    if "index" in arrays:
        index = arrays["index"]
        require(_are_sorted_positions(index, Q), option,
                f"the probe's index to hold sorted positions in [0, {Q})", in_words(index),
                "use numpy.unique")
    return arrays


def _are_sorted_positions(index, Q):
    if index.ndim != 1 or index.dtype.kind not in "iu":
        return False
    if not len(index):
        return True
    steps = np.diff(index.astype(np.int64))
    inside = 0 <= index[0] and index[-1] < Q
    return inside and bool((steps > 0).all())
