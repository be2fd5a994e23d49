"""A line: the learning rate falls from --lr to the share ``final`` of it by equal amounts.

``1 - (1 - final) k / n`` at number k of n, from 0, after the warm-up: the last round, or step,
still trains where ``final`` is 0.
"""

from fedmpi.methods.schedules.progress import Over, final_share, schedule


def linear(final: float = 0.0, warmup: int = 0, over: Over = "rounds"):
    """A fall by equal amounts over the run's rounds, each round's local steps, or all steps.

    Paper: none: the usual line to 0.
    Example: fedmpi train --schedule linear:over=steps
    """
    final_share(final)

    def decay(place, total):
        return 1 - (1 - final) * place / total

    return schedule(decay, over, warmup)
