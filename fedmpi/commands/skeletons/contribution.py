"""NAME: a client that sends a long update has contributed much.

A control for methods that look at more.

    phi_n = |u_n|^power
"""

from fedmpi.core.parts import Contribution, Scores
from fedmpi.core.reduce import row_norms


def NAME(power: float = 1.0):
    """The length of a client's update.

    Paper: none: a first sketch.
    Up: nothing more: it looks at the updates that are sent anyway.
    Down: nothing more.
    Example: fedmpi train --contribution NAME:NAME:power=2
    """
    if not power > 0:
        raise ValueError(f"power must be > 0, got {power}")

    def score(state, cohort, utility, gen):
        # One float64 a client of the cohort. Running statistics, behind ``trained``, do not count.
        # utility(coalitions (M, C) bool) would ask what a merge of only some of them is worth.
        updates = cohort.updates
        trained = updates.U[:, : updates.trained]
        phi = row_norms(trained) ** power
        return Scores(phi, state)

    return Contribution(score)
