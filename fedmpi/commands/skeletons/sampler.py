"""NAME: clients whose last training loss was high are asked more often.

    P(next = n) ~ loss_n^power        among the available ones that are not drawn yet
"""

import torch

from fedmpi.core.parts import Sampler


def NAME(power: float = 1.0):
    """By the training loss; clients without one yet count as the highest.

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
        is_unknown = losses.isnan()
        heard = losses[~is_unknown]
        highest = heard.max() if len(heard) else 1.0
        losses = torch.where(is_unknown, highest, losses)
        # A loss of 0 still has a chance.
        chances = losses.clamp(min=1e-9) ** power
        shares = chances / chances.sum()
        drawn = gen.choice(len(clients), count, replace=False, p=shares)
        chosen = clients[torch.from_numpy(drawn)]
        return chosen.sort().values

    return Sampler(draw)
