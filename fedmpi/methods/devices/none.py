"""No model of time: virtual time stands still.

Training and messages take no time, every client is always available and always answers.
"""

import math

from fedmpi.core.parts import Devices
from fedmpi.methods.devices.fleet import fleet


def none():
    """Infinitely fast devices that are always there.

    Paper: none.
    """

    def at(seconds, N, draw):
        return fleet(
            N,
            gflops=math.inf,
            down_mbit=math.inf,
            up_mbit=math.inf,
            latency_ms=0,
            dropout=0,
            available=True,
        )

    return Devices(at, timed=False)
