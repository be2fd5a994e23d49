"""Static sparse training: a mask fixed at the start.

RigL compares such methods (arXiv 1911.11134): masks at random, or by initial magnitudes.
"""

from fedmpi.core.effect import needs
from fedmpi.core.mask import Distribution, Init, check
from fedmpi.core.parts import Pruner
from fedmpi.methods.pruning.dense import unmoved
from fedmpi.methods.pruning.pattern import first, kept_weights, pattern_of, patterned


@needs(sparsity="nm=none", distribution="nm=none")
def static(sparsity: float = 0.8, distribution: Distribution = "erk", init: Init = "random",
           block: str = "none", nm: str = "none"):
    """A fixed mask, ``init`` random or by the magnitude of the initial weights.

    ``block=8`` keeps or prunes blocks of 8 x 8 weights, ``block=16x1`` of 16 outputs and one
    input; ``nm=2:4`` keeps 2 of each 4 neighbours along the inputs.

    Paper: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners", arXiv 1911.11134,
        which compares with it.
    Up: (1 - sparsity) of the values of a dense model.
    Down: as many, and the positions once to each client.
    Example: fedmpi train --strategy fedavg --pruner static:sparsity=0.9
    """
    check(sparsity, distribution, init)
    pattern = pattern_of(block, nm)

    def start(layout, x, now, gen):
        kept = kept_weights(pattern, layout, sparsity, distribution)
        return {}, first(pattern, layout, x, kept, init, gen)

    part = Pruner(start, unmoved, fixed=True)
    return patterned(part, pattern)
