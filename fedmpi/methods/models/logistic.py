"""Multinomial logistic regression: one linear layer.

    logits = W x + b;   outputs * (F + 1) parameters, 7,850 on MNIST
"""

import math

from torch import nn


def logistic(shape, outputs):
    """A linear classifier of inputs of any ``shape``.

    Paper: none: the textbook's.
    """
    features = math.prod(shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, outputs))
