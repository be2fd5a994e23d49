"""A constant learning rate: factor 1, after the warm-up if there is one."""

from fedmpi.core.effect import needs
from fedmpi.methods.schedules.progress import Over, schedule


@needs(over="warmup!=0")
def constant(warmup: int = 0, over: Over = "rounds"):
    """The same learning rate throughout; it rises over the ``warmup`` first rounds, or local
    steps of each round.

    Paper: Goyal et al. 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
        arXiv 1706.02677, for the warm-up.
    Example: fedmpi train --schedule constant:warmup=5,over=steps
    """
    return schedule(lambda place, total: 1.0, over, warmup)
