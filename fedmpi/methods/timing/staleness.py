"""The weight of an update by its staleness.

    constant 1;   polynomial (1 + tau)^-a;   hinge 1 where tau <= b, else 1 / (a (tau - b) + 1)

The staleness tau counts the merges between a client's start and its arrival. Names and formulas
are of FedAsync (Xie 2019, arXiv 1903.03934).
"""

import math
from typing import Literal

import torch

Staleness = Literal["constant", "polynomial", "hinge"]


def staleness_function(name, a, b):
    """``s(tau (C,) float64) -> (C,)`` in (0, 1], 1 for a fresh update.

    ``ValueError`` for another name or impossible numbers.
    """
    if not (a >= 0 and math.isfinite(a)):
        raise ValueError(f"a must be >= 0 and finite, got {a}")
    if not (b >= 0 and math.isfinite(b)):
        raise ValueError(f"b must be >= 0 and finite, got {b}")

    def polynomial(tau):
        return (1 + tau) ** -a

    def hinge(tau):
        excess = (tau - b).clamp(min=0)
        return 1 / (a * excess + 1)

    functions = {"constant": torch.ones_like, "polynomial": polynomial, "hinge": hinge}
    if name not in functions:
        raise ValueError(f"staleness must be one of {', '.join(functions)}, got {name!r}")
    return functions[name]


def check_workers(concurrency):
    """Raise ``ValueError`` for an impossible number of clients at work."""
    if concurrency < 0:
        raise ValueError(f"concurrency must be >= 1, or 0 for the cohort, got {concurrency}")
