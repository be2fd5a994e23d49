"""NAME: every second client computes at a fraction of the others' speed."""

import torch

from fedmpi.core.parts import Devices, Fleet

FLOPS = 5e9          # FLOP/s of a fast client
BYTES = 1e6          # B/s of everybody's link
LATENCY_S = 0.05


def NAME(slowdown: float = 4.0):
    """Clients 1, 3, 5 ... take ``slowdown`` times as long to train.

    Paper: none: a first sketch.
    Example: fedmpi train --devices NAME:NAME:slowdown=10
    """
    if not slowdown >= 1:
        raise ValueError(f"slowdown must be >= 1, got {slowdown}")

    def at(seconds, N, draw):
        # The fleet at a moment of virtual time. Chance comes from ``draw(*key)``, a generator.
        everybody = torch.ones(N, dtype=torch.float64)
        speed = FLOPS * everybody
        speed[1::2] /= slowdown
        link = BYTES * everybody
        return Fleet(
            speed,
            down=link,
            up=link,
            latency=LATENCY_S * everybody,
            dropout=0 * everybody,
            available=torch.ones(N, dtype=torch.bool))

    return Devices(at)
