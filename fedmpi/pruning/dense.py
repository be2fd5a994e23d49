"""No pruning: every weight lives. The reference that sparse methods are held against."""

from fedmpi.parts import Pruner


def dense():
    """Every weight kept."""

    def init(layout, x, schedule, gen):
        return {}, layout.full_mask()

    def evolve(state, mask, x, replies, schedule, gen):
        return state, mask

    return Pruner(init, evolve)
