"""A constant learning rate: factor 1, after the warm-up if there is one."""

from fedmpi.core.effect import needs
from fedmpi.methods.schedules.progress import Over, schedule


@needs(over="warmup!=0")
def constant(warmup: int = 0, over: Over = "rounds"):
    """The same learning rate throughout, after a rise over the ``warmup`` first rounds.

    With ``over=steps`` these are the first local steps of each round, with ``over=run`` the first
    of the run.

    Paper: Goyal et al. 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
        arXiv 1706.02677, for the warm-up.
    Example: fedmpi train --schedule constant:warmup=5,over=steps
    """

    def decay(place, total):
        return 1.0

    return schedule(decay, over, warmup)
