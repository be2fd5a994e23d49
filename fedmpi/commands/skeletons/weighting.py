"""NAME: a client weighs by the logistic function of its score, and never nothing.

    r_n = floor + 1 / (1 + exp(-phi_n)),      w_n = r_n / sum of r over the cohort
"""

import torch

from fedmpi.core.parts import Weighting


def NAME(floor: float = 0.01):
    """Scores between ``floor`` and 1, proportionally.

    Paper: none: a first sketch.
    Example: fedmpi train --contribution cosine --weighting NAME:NAME:floor=0.1
    """
    if not floor > 0:
        raise ValueError(f"floor must be > 0, got {floor}")

    def init(n):
        # Every client's weight, up to a common factor. ``n`` holds their numbers of samples.
        return {"weights": torch.full_like(n, 1 / len(n))}

    def weigh(state, phi, cohort):
        # Clients that did not take part stay as they were. The state is copied, not written to.
        weights = state["weights"].clone()
        own = floor + torch.sigmoid(phi)
        weights[cohort.clients] = own
        return {"weights": weights}, own / own.sum()

    return Weighting(init, weigh)
