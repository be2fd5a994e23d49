"""Steps: the learning rate is multiplied by ``factor`` after every so many rounds, or local steps.

``factor^floor(k / every)`` at number k, from 0, after the warm-up.
"""

from fedmpi.methods.schedules.progress import Over, schedule


def step(every: int = 10, factor: float = 0.1, warmup: int = 0, over: Over = "rounds"):
    """A fall by ``factor`` after ``every`` rounds, local steps of each round, or steps of the run.

    Paper: none: the usual drops of supervised training.
    Example: fedmpi train --schedule step:every=20,factor=0.5
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    if not factor > 0:
        raise ValueError(f"factor must be > 0, got {factor}")

    def decay(place, total):
        num_falls = place // every
        return factor ** num_falls

    return schedule(decay, over, warmup)
