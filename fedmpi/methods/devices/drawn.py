"""Devices drawn once for the run: log-normal speeds and links.

    speed_n = gflops exp(speed_sigma z_n),   links_n = mbit exp(link_sigma w_n)
    corr(z, w) = correlation

``gflops``, ``down_mbit`` and ``up_mbit`` are medians; a client's two links share w. Client n's
device does not depend on the number of clients. FedScale (Lai 2022, arXiv 2105.11367) shows
that phones differ by orders of magnitude, with speeds from AI Benchmark and links from
MobiPerf; the log-normal shape and the numbers here are chosen, not fitted to them. sigma = 1
puts a factor of 13 between the 10th and the 90th percentile.

Availability is drawn a slot of ``slot_s`` seconds, as in ``constant``. With ``diurnal`` every
client is instead available for the first ``availability`` of its own day of ``period_h`` hours,
days beginning evenly spread over the clock.
"""

import math

import torch

from fedmpi.core.effect import needs
from fedmpi.core.parts import Devices
from fedmpi.methods.devices.fleet import check, check_common, fleet, present

SECONDS_PER_HOUR = 3600


@needs(slot_s="diurnal=false", period_h="diurnal=true")
def drawn(gflops: float = 5.0, speed_sigma: float = 1.0, down_mbit: float = 20.0,
          up_mbit: float = 5.0, link_sigma: float = 1.0, correlation: float = 0.0,
          latency_ms: float = 50.0, dropout: float = 0.0, availability: float = 1.0,
          slot_s: float = 3600.0, diurnal: bool = False, period_h: float = 24.0):
    """Log-normal speeds and links, by medians and sigmas.

    Paper: Lai et al. 2022, "FedScale: Benchmarking Model and System Performance of Federated
        Learning at Scale", arXiv 2105.11367.
    """
    check_common(gflops, down_mbit, up_mbit, latency_ms, dropout, availability, slot_s)
    sigmas = ("speed_sigma", speed_sigma), ("link_sigma", link_sigma)
    check(spreads=sigmas, positive=(("period_h", period_h),))
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation must be in [-1, 1], got {correlation}")
    if diurnal and availability == 1:
        raise ValueError("availability must be below 1 with diurnal=true, it is the share of the "
                         "day on; got 1.0")
    period_s = SECONDS_PER_HOUR * period_h

    def at(seconds, N, draw):
        speed, link = factors(N, draw)
        awake = on_duty if diurnal else at_random
        return fleet(
            N,
            gflops=gflops * speed,
            down_mbit=down_mbit * link,
            up_mbit=up_mbit * link,
            latency_ms=latency_ms,
            dropout=dropout,
            available=awake(seconds, N, draw),
        )

    def factors(N, draw):
        """Two (N,) float64: the factors of the medians of speed and links."""
        normal = draw(0).standard_normal((N, 2))
        z, w = torch.from_numpy(normal).unbind(1)
        # A share of z in w makes the correlation; the rest keeps w at variance 1.
        own_part = math.sqrt(1 - correlation ** 2)
        w = correlation * z + own_part * w
        return torch.exp(speed_sigma * z), torch.exp(link_sigma * w)

    def at_random(seconds, N, draw):
        return present(seconds, N, draw, availability, slot_s)

    def on_duty(seconds, N, draw):
        # Days begin at any time: drawn once, by a key without a slot.
        phase = torch.from_numpy(draw(2).random(N))
        time_of_day = (seconds / period_s + phase) % 1
        return time_of_day < availability

    return Devices(at)
