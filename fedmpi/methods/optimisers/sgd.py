"""SGD with momentum and weight decay, the arithmetic of ``torch.optim.SGD``.

``g <- g + weight_decay x;  v <- momentum v + (1 - dampening) g``, at the first step ``v <- g``;
``x <- x - lr v``, with Nesterov's momentum ``x <- x - lr (g + momentum v)``. Cost: one vector
more with momentum.
"""

from functools import partial

import torch

from fedmpi.core.parts import Optimiser


def sgd(momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False,
        dampening: float = 0.0):
    """SGD; plain where no option is given.

    On a GPU a ``dampening`` waits for each step, as the first one is another.

    Paper: Sutskever et al. 2013, "On the importance of initialization and momentum in deep
        learning", ICML 2013.
    Example: fedmpi train --optimiser sgd:momentum=0.9,nesterov=true
    """
    check(momentum, weight_decay, nesterov, dampening)

    def init(x):
        state = {}
        if momentum:
            state["velocity"] = torch.zeros_like(x)
        if dampening:
            state["steps"] = x.new_zeros(x.shape[:-1])
        return state

    def step(x, g, state, lr):
        if weight_decay:
            g.add_(x, alpha=weight_decay)
        if not momentum:
            return descend(x, g, lr)
        velocity = accelerate(state, g)
        if nesterov:
            direction = g.add_(velocity, alpha=momentum)
            return descend(x, direction, lr)
        return descend(x, velocity, lr)

    def accelerate(state, g):
        """The state's velocity after this gradient, in place."""
        velocity = state["velocity"].mul_(momentum)
        if not dampening:
            return velocity.add_(g)
        is_first = state["steps"] == 0
        share = torch.where(is_first, 1.0, 1.0 - dampening)
        velocity.addcmul_(g, share[..., None])
        state["steps"].add_(1)
        return velocity

    # SGD(fused=True) calls this in the end.
    fused_step = partial(
        torch._fused_sgd_, momentum=momentum, weight_decay=weight_decay, dampening=dampening,
        nesterov=nesterov, maximize=False)

    def fused(xs, gs, states, lr):
        # A velocity of 0 makes any step the first one, except with dampening.
        is_first = bool(dampening) and float(states["steps"]) == 0
        fused_step(xs, gs, states.get("velocity", []), lr=lr, is_first_step=is_first)
        if dampening:
            states["steps"].add_(1)

    def travelled(lrs):
        """The displacement by a constant gradient of 1."""
        way = 0.0
        velocity = 0.0
        share = 1
        for lr in lrs:
            velocity = momentum * velocity + share
            speed = velocity
            if nesterov:
                speed = 1 + momentum * velocity
            way += lr * speed
            # Every step but the first is dampened.
            share = 1 - dampening
        return way

    return Optimiser("sgd", init, step, travelled, fused)


def check(momentum, weight_decay, nesterov, dampening):
    """ValueError unless the numbers are SGD's, and fit each other."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
    if not 0 <= dampening < 1:
        raise ValueError(f"dampening must be in [0, 1), got {dampening}")
    if nesterov and not (momentum and dampening == 0):
        raise ValueError("nesterov needs momentum > 0 and dampening=0, "
                         f"got {momentum} and {dampening}")
    if dampening and not momentum:
        raise ValueError(f"dampening must be 0 without momentum, got {dampening}: "
                         "there is nothing to dampen")


def descend(x, direction, lr):
    """``x - lr direction`` in place; ``lr`` as for ``Optimiser.step``."""
    if isinstance(lr, torch.Tensor):
        x.addcmul_(direction, lr, value=-1)
    else:
        x.add_(direction, alpha=-lr)
