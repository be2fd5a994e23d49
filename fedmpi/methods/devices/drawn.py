"""Devices drawn once for the run: log-normal speeds and links.

    speed_n = gflops exp(speed_sigma z_n),   links_n = mbit exp(link_sigma w_n),   corr(z, w) = correlation

``gflops``, ``down_mbit`` and ``up_mbit`` are medians; a client's two links share w. Client n's
device does not depend on how many clients there are. That phones differ by orders of magnitude
is what FedScale (Lai 2022, arXiv 2105.11367) shows, with speeds from AI Benchmark and links
from MobiPerf; the log-normal shape and the numbers here are chosen, not fitted to them. sigma =
1 puts a factor of 13 between the 10th and the 90th percentile.

Availability is drawn a slot of ``slot_s`` seconds, as in ``constant``. With ``diurnal`` every
client is instead there for the first ``availability`` of its own day of ``period_h`` hours,
days beginning evenly spread over the clock.
"""

import math

import torch

from fedmpi.methods.devices.fleet import check, check_common, fleet, present
from fedmpi.core.effect import needs
from fedmpi.core.parts import Devices


@needs(slot_s="diurnal=false", period_h="diurnal=true")
def drawn(gflops: float = 5.0, speed_sigma: float = 1.0, down_mbit: float = 20.0, up_mbit: float = 5.0,
          link_sigma: float = 1.0, correlation: float = 0.0, latency_ms: float = 50.0, dropout: float = 0.0,
          availability: float = 1.0, slot_s: float = 3600.0, diurnal: bool = False, period_h: float = 24.0):
    """Log-normal speeds and links, by medians and sigmas.

    Paper: Lai et al. 2022, "FedScale: Benchmarking Model and System Performance of Federated
        Learning at Scale", arXiv 2105.11367.
    """
    check_common(gflops, down_mbit, up_mbit, latency_ms, dropout, availability, slot_s)
    check(spreads=(("speed_sigma", speed_sigma), ("link_sigma", link_sigma)), positive=(("period_h", period_h),))
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation must be in [-1, 1], got {correlation}")
    if diurnal and availability == 1:
        raise ValueError("availability must be below 1 with diurnal=true, it is the share of the day on; got 1.0")

    def at(seconds, N, draw):
        z, w = torch.from_numpy(draw(0).standard_normal((N, 2))).unbind(1)
        w = correlation * z + math.sqrt(1 - correlation ** 2) * w
        link = torch.exp(link_sigma * w)
        awake = on_duty if diurnal else asked
        return fleet(N, gflops=gflops * torch.exp(speed_sigma * z), down_mbit=down_mbit * link, up_mbit=up_mbit * link,
                     latency_ms=latency_ms, dropout=dropout, available=awake(seconds, N, draw))

    def asked(seconds, N, draw):
        return present(seconds, N, draw, availability, slot_s)

    def on_duty(seconds, N, draw):
        phase = torch.from_numpy(draw(2).random(N))
        return (seconds / (3600 * period_h) + phase) % 1 < availability

    return Devices(at)
