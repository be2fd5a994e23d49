"""NAME: the server merges every few answers, late ones less and less.

    x <- x + sum over the buffer of w_n rate^tau_n (x_n - x_start,n)

tau counts the merges since client n began.
"""

from fedmpi.core.parts import Timing

BUFFER = 2


def NAME(rate: float = 0.5):
    """Two answers a merge, each times ``rate`` for every merge that it comes late.

    Paper: none: a first sketch.
    Up: two updates a merge.
    Down: as many models.
    Example: fedmpi train --devices drawn --timing NAME:NAME:rate=0.9 --cohort 4
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be in (0, 1], got {rate}")

    def discount(staleness):
        return rate ** staleness

    return Timing(buffer=BUFFER, discount=discount)
