"""No model of time: training and messages take none, everybody is always there and always
answers. Virtual time stands still."""

import math

from fedmpi.methods.devices.fleet import fleet
from fedmpi.core.parts import Devices


def none():
    """Infinitely fast devices that are always there.

    Paper: none.
    """

    def at(seconds, N, draw):
        return fleet(N, gflops=math.inf, down_mbit=math.inf, up_mbit=math.inf, latency_ms=0, dropout=0, available=True)

    return Devices(at, timed=False)
