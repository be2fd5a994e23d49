"""PruneFL: FedAvg on a model whose mask follows the gradients that clients report (arXiv 1909.12326).

What makes it PruneFL is its pruner (``fedmpi.pruning.prunefl``), used unless another is named. Wire: the kept values,
both ways; on reconfiguration rounds each client also sends one squared gradient a prunable weight.
"""

from fedmpi.local import sgd
from fedmpi.merge import average
from fedmpi.parts import Strategy


def prunefl(momentum: float = 0.9, weight_decay: float = 1e-3):
    """FedAvg with PruneFL's adaptive pruning."""

    plain = {"momentum": momentum, "weight_decay": weight_decay}

    def local(task):
        return sgd(task, **plain)

    return Strategy(lambda layout: {}, local, average, pruner="prunefl", linear=True, additive=True, sgd=plain)
