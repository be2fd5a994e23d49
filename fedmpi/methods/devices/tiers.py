"""Three classes of devices: slow, middle and fast.

    round(slow N) clients have speed and links times slow_factor
    round(fast N) clients have speed and links times fast_factor, the others times 1

The classes are drawn once. With ``links=false`` the factors are of the speed alone. Shares and
factors are chosen. Availability as in ``constant``.
"""

import torch

from fedmpi.core.parts import Devices
from fedmpi.methods.devices.fleet import check, check_common, fleet, present


def tiers(slow: float = 0.3, fast: float = 0.2, slow_factor: float = 0.2, fast_factor: float = 5.0,
          links: bool = True, gflops: float = 5.0, down_mbit: float = 20.0, up_mbit: float = 5.0,
          latency_ms: float = 50.0, dropout: float = 0.0, availability: float = 1.0,
          slot_s: float = 3600.0):
    """Shares of slow, middle and fast devices.

    Paper: Chai et al. 2020, "TiFL: A Tier-based Federated Learning System", arXiv 2001.09249,
        there five tiers by CPU.
    """
    check_common(gflops, down_mbit, up_mbit, latency_ms, dropout, availability, slot_s)
    factors = ("slow_factor", slow_factor), ("fast_factor", fast_factor)
    check(shares=(("slow", slow), ("fast", fast)), positive=factors)
    if slow + fast > 1:
        raise ValueError(f"slow + fast must be at most 1, got {slow} + {fast}")
    if not slow_factor <= 1 <= fast_factor:
        raise ValueError("slow_factor must be at most 1 and fast_factor at least 1, "
                         f"got {slow_factor} and {fast_factor}")

    def at(seconds, N, draw):
        speed = factor_of(N, draw)
        # With links=false all links are alike.
        link = speed if links else 1.0
        return fleet(
            N,
            gflops=gflops * speed,
            down_mbit=down_mbit * link,
            up_mbit=up_mbit * link,
            latency_ms=latency_ms,
            dropout=dropout,
            available=present(seconds, N, draw, availability, slot_s),
        )

    def factor_of(N, draw):
        """(N,) float64: the factor of each client's class."""
        # Slow clients first in a random order, fast ones next, middle ones last.
        order = torch.from_numpy(draw(0).permutation(N))
        num_slow = round(slow * N)
        num_fast = round(fast * N)
        factor = torch.ones(N, dtype=torch.float64)
        factor[order[:num_slow]] = slow_factor
        factor[order[num_slow: num_slow + num_fast]] = fast_factor
        return factor

    return Devices(at)
