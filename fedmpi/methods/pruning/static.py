"""Static sparse training: a mask fixed at the start.

RigL compares such methods (arXiv 1911.11134): masks at random, or by initial magnitudes.
"""

from fedmpi.core.mask import Distribution, Init, budgets, check, first_mask
from fedmpi.core.parts import Pruner
from fedmpi.methods.pruning.dense import unmoved


def static(sparsity: float = 0.8, distribution: Distribution = "erk", init: Init = "random"):
    """A fixed mask, ``init`` random or by the magnitude of the initial weights.

    Paper: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners", arXiv 1911.11134,
        which compares with it.
    Up: (1 - sparsity) of the values of a dense model.
    Down: as many, and the positions once to each client.
    Example: fedmpi train --strategy fedavg --pruner static:sparsity=0.9
    """
    check(sparsity, distribution, init)

    def start(layout, x, now, gen):
        kept = budgets(layout, sparsity, distribution)
        return {}, first_mask(layout, x, kept, init, gen)

    return Pruner(start, unmoved, fixed=True)
