"""No pruning: every weight lives. The reference that sparse methods are held against."""

from fedmpi.core.parts import Pruner


def dense():
    """Every weight kept.

    Paper: none: nothing is pruned, the reference.
    Up: a value for every weight.
    Down: a value for every weight; positions never travel.
    Example: fedmpi train --strategy fedavg --pruner dense
    """

    def init(layout, x, schedule, gen):
        return {}, layout.full_mask()

    def evolve(state, mask, x, replies, schedule, gen):
        return state, mask

    return Pruner(init, evolve, fixed=True)
