"""Logits that are not computed yet: a network's features and the weight of its head.

A language model with V tokens has V logits at each place: for 16,384 places and 50,304 tokens they
are 3.3 GB. Their cross-entropy needs them piece by piece only.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F


class Logits(NamedTuple):
    """The logits ``features (n, T, d)`` times the transposed ``weight (V, d)``."""

    features: torch.Tensor
    weight: torch.Tensor

    @property
    def requires_grad(self):
        return self.features.requires_grad or self.weight.requires_grad

    @property
    def shape(self):
        return *self.features.shape[:-1], len(self.weight)

    def whole(self):
        """(n, T, V): all of them."""
        return F.linear(self.features, self.weight)
