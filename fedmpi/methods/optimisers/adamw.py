"""AdamW, the arithmetic of ``torch.optim.AdamW``: Adam with a weight decay outside the gradient.

``x <- x - lr weight_decay x`` before each step. A weight of 0, as pruned ones are, decays to 0.
"""

import torch

from fedmpi.methods.optimisers.adam import Fresh, check, moments


def adamw(beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01,
          fresh: Fresh = "zero"):
    """Adam with decoupled weight decay.

    ``fresh`` is v of a weight that grows while the state stays: 0, or its layer's median.

    Paper: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    Example: fedmpi train --optimiser adamw:weight_decay=0.05 --lr 0.001
    """
    check(beta1, beta2, eps, weight_decay, fresh)

    def shrink_weights(x, g, lr):
        x.mul_(1 - lr * weight_decay)

    decay = shrink_weights if weight_decay else None
    return moments("adamw", decay, torch._fused_adamw_, weight_decay, beta1, beta2, eps, fresh)
