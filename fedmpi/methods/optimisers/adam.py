"""Adam, the arithmetic of ``torch.optim.Adam``: the mean gradient over its root mean square.

``m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2``, then with ``c = 1 -
beta^steps`` ``x <- x - (lr / c1) m / (sqrt(v / c2) + eps)``. Weight decay is added to the
gradient, unlike that of ``adamw``. A pruned weight has the gradient 0 throughout and stays.
Cost: two vectors more.

Where masks move while the state stays, a weight that grows begins at ``m = v = 0`` when the number
of steps no longer corrects for it: its first step is ``(1 - beta1) / sqrt(1 - beta2)`` long, 3.2
times lr at the usual betas. With ``fresh=median`` its v is the median of its layer's instead; so is
that of a weight that has lived, but has had no gradient yet.
"""

from functools import partial
from typing import Literal, get_args

import torch

from fedmpi.core.parts import Optimiser

# The v of a weight that grows.
Fresh = Literal["zero", "median"]


def adam(beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
         fresh: Fresh = "zero"):
    """Adam on clients, whose moments start anew each round unless the strategy keeps them.

    ``fresh`` is v of a weight that grows while the state stays: 0, or its layer's median.

    Paper: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.
    Example: fedmpi train --optimiser adam --lr 0.001
    """
    check(beta1, beta2, eps, weight_decay, fresh)

    def into_gradient(x, g, lr):
        g.add_(x, alpha=weight_decay)

    decay = into_gradient if weight_decay else None
    return moments("adam", decay, torch._fused_adam_, weight_decay, beta1, beta2, eps, fresh)


def check(beta1, beta2, eps, weight_decay, fresh):
    """ValueError unless the numbers are Adam's."""
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"beta1 and beta2 must be in [0, 1), got {beta1} and {beta2}")
    if not eps > 0:
        raise ValueError(f"eps must be > 0, got {eps}: a pruned weight's step is 0 / eps")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
    if fresh not in get_args(Fresh):
        raise ValueError(f"fresh must be {' or '.join(get_args(Fresh))}, got {fresh!r}")


def moments(name, decay, kernel, weight_decay, beta1, beta2, eps, fresh):
    """The ``Optimiser`` of Adam's rule after ``decay(x, g, lr)`` in place, None for no decay.

    ``kernel`` is torch's fused one for both.
    """

    def init(x):
        return {
            "mean": torch.zeros_like(x),
            "square": torch.zeros_like(x),
            "steps": x.new_zeros(x.shape[:-1]),
        }

    def step(x, g, state, lr):
        if decay is not None:
            decay(x, g, lr)
        # In double precision: float32 would take 1 - 0.999 wrong in the fifth digit.
        steps = state["steps"].add_(1).double()
        c1 = 1 - beta1 ** steps
        c2 = 1 - beta2 ** steps
        mean_factor = (1 / c1).float()[..., None]
        root_divisor = c2.sqrt().float()[..., None]
        mean = state["mean"].lerp_(g, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        direction = mean * (mean_factor * lr)
        scale = (square.sqrt() / root_divisor).add_(eps)
        x.addcdiv_(direction, scale, value=-1)

    fused_step = partial(
        kernel, beta1=beta1, beta2=beta2, weight_decay=weight_decay, eps=eps, amsgrad=False,
        maximize=False)

    def fused(xs, gs, states, lr):
        # The kernel takes a count for each tensor; here all share one.
        steps = [states["steps"].add_(1)] * len(xs)
        # The empty list is for amsgrad, which is off.
        fused_step(xs, gs, states["mean"], states["square"], [], steps, lr=lr)

    grown = median_square if fresh == "median" else None
    return Optimiser(name, init, step, fused=fused, grown=grown, notes=idle_fresh)


def median_square(state, layout, mask):
    """Set the mean square of kept weights without any gradient so far, in place, to the median of
    their layer's others."""
    for slot in layout.weights:
        kept = mask[slot.span]
        square = state["square"][slot.span]
        lived = square > 0
        fresh = kept & ~lived
        if fresh.any() and lived.any():
            square[fresh] = square[lived].median()


def idle_fresh(facts):
    """``notes`` of Adam and AdamW: no weight grows while the state stays."""
    state_meets_masks = facts.resumes or facts.pruned_apart
    if "fresh" in facts.user_options and not state_meets_masks:
        yield ("no effect of fresh: clients' optimisers begin anew each round, after the mask has "
               "moved; take --strategy diloco")
