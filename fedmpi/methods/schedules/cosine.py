"""A cosine: the learning rate falls from --lr to the share ``final`` of it along half a wave.

``final + (1 - final) (1 + cos(pi k / n)) / 2`` at number k of n, from 0, after the warm-up. The
last round, or step, comes just before the end of the wave, and still trains where ``final`` is
0.
"""

import math

from fedmpi.methods.schedules.progress import Over, final_share, schedule


def cosine(final: float = 0.0, warmup: int = 0, over: Over = "rounds"):
    """Half a cosine over the run's rounds, the local steps of each round, or all steps of the run.

    Paper: Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts",
        arXiv 1608.03983.
    Example: fedmpi train --schedule cosine:final=0.1,warmup=20,over=run
    """
    final_share(final)

    def decay(place, total):
        # 0 at the first place, and a place short of pi at the last.
        angle = math.pi * place / total
        return final + (1 - final) * (1 + math.cos(angle)) / 2

    return schedule(decay, over, warmup)
