"""No pruning: every weight lives. Sparse methods are compared to it."""

from fedmpi.core.parts import Pruner


def dense():
    """Every weight kept.

    Paper: none: nothing is pruned, the reference.
    Up: a value for every weight.
    Down: a value for every weight; positions never travel.
    Example: fedmpi train --strategy fedavg --pruner dense
    """

    def start(layout, x, now, gen):
        return {}, layout.full_mask()

    return Pruner(start, unmoved, fixed=True)


def unmoved(state, mask, x, replies, now, gen):
    """The state and the mask as they are."""
    return state, mask
