"""Adam, the arithmetic of ``torch.optim.Adam``: steps of the mean gradient over its root mean
square.

``m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2``, then with ``c = 1 -
beta^steps`` ``x <- x - (lr / c1) m / (sqrt(v / c2) + eps)``. Weight decay is added to the
gradient, unlike that of ``adamw``. A weight that is pruned has the gradient 0 throughout and
stays. Cost: two vectors more.
"""

from functools import partial

import torch

from fedmpi.core.parts import Optimiser


def adam(beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0):
    """Adam on clients, whose moments start anew each round.

    Paper: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.
    Example: fedmpi train --optimiser adam --lr 0.001
    """
    check(beta1, beta2, eps, weight_decay)

    def decay(x, g, lr):
        g.add_(x, alpha=weight_decay)

    rule = {"beta1": beta1, "beta2": beta2, "eps": eps}
    return moments("adam", decay if weight_decay else None, torch._fused_adam_, weight_decay, **rule)


def check(beta1, beta2, eps, weight_decay):
    """ValueError for numbers that are none of Adam's."""
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"beta1 and beta2 must be in [0, 1), got {beta1} and {beta2}")
    if not eps > 0:
        raise ValueError(f"eps must be > 0, got {eps}: a pruned weight's step is 0 / eps")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")


def moments(name, decay, kernel, weight_decay, beta1, beta2, eps):
    """The ``Optimiser`` of Adam's rule after ``decay(x, g, lr)`` in place, None where nothing
    decays; ``kernel`` is torch's for both."""

    def init(x):
        return {"mean": torch.zeros_like(x), "square": torch.zeros_like(x), "steps": x.new_zeros(x.shape[:-1])}

    def step(x, g, state, lr):
        if decay is not None:
            decay(x, g, lr)
        steps = state["steps"].add_(1).double()
        # In double precision: float32 would take 1 - 0.999 wrong in the fifth digit.
        c1, c2 = (1 - beta ** steps for beta in (beta1, beta2))
        size, root = (each.float()[..., None] for each in (1 / c1, c2.sqrt()))
        mean = state["mean"].lerp_(g, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        x.addcdiv_(mean * (size * lr), (square.sqrt() / root).add_(eps), value=-1)

    move = partial(kernel, beta1=beta1, beta2=beta2, weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=False)

    def fused(xs, gs, states, lr):
        steps = [states["steps"].add_(1)] * len(xs)
        move(xs, gs, states["mean"], states["square"], [], steps, lr=lr)

    return Optimiser(name, init, step, fused=fused)
