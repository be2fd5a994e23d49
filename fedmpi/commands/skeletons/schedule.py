"""NAME: the learning rate falls by the same factor every round.

    factor = decay^(t - 1)         in round t, from 1
"""

from fedmpi.core.parts import Schedule


def NAME(decay: float = 0.99):
    """A fall by ``decay`` a round.

    Paper: none: the textbook's.
    Example: fedmpi train --schedule NAME:NAME:decay=0.95
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1], got {decay}")

    def rate(now, step, steps):
        # ``now.t`` is the round. The step within it is left alone here; see ``within`` of Schedule.
        return decay ** (now.t - 1)

    return Schedule(rate)
