"""Client-varying symmetric label noise: every client another rate, evenly spaced.

    {rate_n} = {low + (high - low) k / (N - 1), k = 0 .. N - 1}, in random order
    y -> one of the other C - 1 classes
"""

import numpy as np

from fedmpi.core.parts import Noise
from fedmpi.methods.noise.corrupt import flip_to_others, fraction


def graded(low: float = 0.0, high: float = 0.8):
    """Noise whose level goes linearly from ``low`` to ``high`` over the clients, shuffled.

    Paper: none of its own: symmetric noise, of another rate on every client.
    """
    fraction(low=low, high=high)
    if low > high:
        raise ValueError(f"low must be at most high, got low={low} and high={high}")

    def rates(clients, gen):
        evenly_spaced = np.linspace(low, high, clients)
        return gen.permutation(evenly_spaced)

    return Noise(rates, flip_to_others)
