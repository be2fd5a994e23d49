"""How much an update counts by its staleness: the merges between its client's start and its
arrival.

    constant 1;   polynomial (1 + tau)^-a;   hinge 1 where tau <= b, else 1 / (a (tau - b) + 1)

The names and formulas are those of FedAsync (Xie 2019, arXiv 1903.03934).
"""

import math
from typing import Literal

import torch

Staleness = Literal["constant", "polynomial", "hinge"]


def staleness_function(name, a, b):
    """``s(tau (C,) float64) -> (C,)`` in (0, 1], 1 for a fresh update; ``ValueError`` for what
    makes no sense."""
    if not (a >= 0 and math.isfinite(a)):
        raise ValueError(f"a must be >= 0 and finite, got {a}")
    if not (b >= 0 and math.isfinite(b)):
        raise ValueError(f"b must be >= 0 and finite, got {b}")
    functions = {"constant": torch.ones_like, "polynomial": lambda tau: (1 + tau) ** -a,
                 "hinge": lambda tau: 1 / (a * (tau - b).clamp(min=0) + 1)}
    if name not in functions:
        raise ValueError(f"staleness must be one of {', '.join(functions)}, got {name!r}")
    return functions[name]


def check_workers(concurrency):
    """Raise ``ValueError`` for a number of clients at work that cannot be."""
    if concurrency < 0:
        raise ValueError(f"concurrency must be >= 1, or 0 for the cohort, got {concurrency}")
