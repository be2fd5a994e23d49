"""The server's model as others see it: clients, evaluations, exports."""

import torch

from fedmpi.core.support import copied


def model_on(x, support, layout):
    """(P,): ``x (P,)`` on the ``support (K,)``, zero elsewhere.

    Personal tensors stay as the model's factory made them, on the support or not, and the base as
    it is in ``x``.
    """
    whole = copied(x, support, torch.zeros_like(x))
    if layout.personal or layout.base:
        unsent = layout.unsent_positions
        whole[unsent] = x[unsent]
    return whole


def model_sent(run, state, support):
    """(P,): the model that clients receive, zero off ``support (K,)``."""
    if run.pruner.keeps_pruned_values:
        return model_on(state["x"], support, run.layout)
    # Other pruners leave nothing off the mask.
    return state["x"]


def mask_counted(pruner, layout, state):
    """(Q,) bool: the mask within the budget, for tests of the model.

    Some pruners send clients more weights, or fewer.
    """
    if pruner.nominal is None:
        return state["mask"]
    return pruner.nominal(state["pruner"], state["mask"], layout)


def model_tested(run, state):
    """(P,): the model for tests, zero off its mask."""
    if run.pruner.nominal is None:
        return model_sent(run, state, run.layout.compact(state["mask"]))
    mask = mask_counted(run.pruner, run.layout, state)
    support = run.layout.compact(mask)
    return model_on(state["x"], support, run.layout)
