"""NAME: steps of one length, by the signs of a moving mean of gradients.

    m <- momentum m + (1 - momentum) g          x <- x - lr sign(m)
"""

import torch

from fedmpi.core.parts import Optimiser


def NAME(momentum: float = 0.9):
    """Descent by signs.

    Paper: Bernstein et al. 2018, "signSGD: Compressed Optimisation for Non-Convex Problems", arXiv
        1802.04434, there called Signum.
    Example: fedmpi train --optimiser NAME:NAME --lr 0.001
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")

    def init(x):
        return {"mean": torch.zeros_like(x)}

    def step(x, g, state, lr):
        # In place, value by value: rows of x are several clients, and lr is a number, a tensor of
        # no dimensions, or a rate a row. A weight of 0 whose gradient is 0 stays.
        mean = state["mean"]
        mean.mul_(momentum).add_(g, alpha=1 - momentum)
        x.sub_(mean.sign() * lr)

    return Optimiser("NAME", init, step)
