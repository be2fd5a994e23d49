"""AdamW, the arithmetic of ``torch.optim.AdamW``: Adam whose weights decay by themselves, ``x
<- x - lr weight_decay x`` before each step, and not through the gradient. A weight of 0, as
pruned ones are, decays to 0."""

import torch

from fedmpi.methods.optimisers.adam import check, moments


def adamw(beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01):
    """Adam with decoupled weight decay.

    Paper: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    Example: fedmpi train --optimiser adamw:weight_decay=0.05 --lr 0.001
    """
    check(beta1, beta2, eps, weight_decay)

    def decay(x, g, lr):
        x.mul_(1 - lr * weight_decay)

    rule = {"beta1": beta1, "beta2": beta2, "eps": eps}
    return moments("adamw", decay if weight_decay else None, torch._fused_adamw_, weight_decay, **rule)
