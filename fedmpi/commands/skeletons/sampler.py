"""NAME: clients whose last training loss was high are asked more often.

    P(next = n) ~ loss_n^power        among the available ones that are not drawn yet
"""

import torch

from fedmpi.core.parts import Sampler


def NAME(power: float = 1.0):
    """By the training loss; clients that the server has not heard from count as the highest.

    Paper: none: a first sketch.
    Up: nothing more: clients tell their training loss anyway.
    Down: nothing more.
    Example: fedmpi train --sampler NAME:NAME:power=2 --cohort 4
    """
    if not power >= 0:
        raise ValueError(f"power must be >= 0, got {power}")

    def draw(gen, count, records):
        # int64, distinct, all available; ``gen`` is numpy's.
        clients = torch.nonzero(records.available).flatten()
        if count >= len(clients):
            return clients
        losses = records.losses[clients]
        unknown = losses.isnan()
        highest = losses[~unknown].max() if not unknown.all() else 1.0
        chances = torch.where(unknown, highest, losses).clamp(min=1e-9) ** power
        chosen = gen.choice(len(clients), count, replace=False, p=chances / chances.sum())
        return clients[torch.from_numpy(chosen)].sort().values

    return Sampler(draw)
