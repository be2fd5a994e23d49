"""All devices alike.

    speed = gflops 1e9 FLOP/s,   links = mbit 1e6 / 8 B/s
    available_n(slot) ~ Bernoulli(availability)

``gflops`` is a device's sustained speed in training, not its peak. A client may drop out
(``dropout``) after it was asked: it never answers. Availability is drawn anew for each slot of
``slot_s`` seconds of virtual time. The defaults are chosen, of the order of a mid-range phone
on a mobile network.
"""

from fedmpi.core.parts import Devices
from fedmpi.methods.devices.fleet import check_common, fleet, present


def constant(gflops: float = 5.0, down_mbit: float = 20.0, up_mbit: float = 5.0,
             latency_ms: float = 50.0, dropout: float = 0.0, availability: float = 1.0,
             slot_s: float = 3600.0):
    """The same device for every client.

    Paper: none: all alike.
    """
    check_common(gflops, down_mbit, up_mbit, latency_ms, dropout, availability, slot_s)

    def at(seconds, N, draw):
        return fleet(
            N,
            gflops=gflops,
            down_mbit=down_mbit,
            up_mbit=up_mbit,
            latency_ms=latency_ms,
            dropout=dropout,
            available=present(seconds, N, draw, availability, slot_s),
        )

    return Devices(at)
