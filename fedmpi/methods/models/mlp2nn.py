"""The "2NN" of McMahan (1602.05629): two hidden layers of 200; 199,210 parameters on MNIST."""

import math

from torch import nn


def mlp2nn(shape, outputs, hidden: int = 200):
    """A network of two hidden layers of ``hidden`` units for inputs of any ``shape``.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    """
    if hidden < 1:
        raise ValueError(f"hidden must be >= 1, got {hidden}")
    features = math.prod(shape)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )
