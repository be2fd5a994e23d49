"""NAME: spirals in the plane, one a class, that no straight line tells apart."""

import numpy as np

from fedmpi.core.parts import Dataset
from fedmpi.methods.datasets.dataset import checked, moments

CLASSES = 3


def NAME(data_dir, noise: float = 0.1):
    """Points (900, 2) on three spirals for training, 300 for the test; ``noise`` is their spread.

    Paper: none: a first sketch.
    Example: fedmpi train --dataset NAME:NAME:noise=0.2 --model 2nn
    """
    if not noise >= 0:
        raise ValueError(f"noise must be >= 0, got {noise}")
    # ``data_dir`` is where files would be read. The seed belongs to the data, not to the run.
    gen = np.random.default_rng(0)
    x_train, y_train = _spirals(900, noise, gen)
    x_test, y_test = _spirals(300, noise, gen)
    mean, std = moments(x_train)
    data = Dataset(x_train, y_train, x_test, y_test, CLASSES, mean, std)
    return checked(data, "NAME")


def _spirals(samples, noise, gen):
    """``(x (samples, 2) float32, y (samples,) int64)``."""
    y = np.arange(samples) % CLASSES
    radius = gen.uniform(0.1, 1.0, samples)
    # Each spiral begins in a direction of its own.
    start = 2 * np.pi * y / CLASSES
    angle = 4 * radius + start
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = radius[:, None] * directions
    spread = noise * gen.standard_normal((samples, 2))
    x = points + spread
    return x.astype(np.float32), y.astype(np.int64)
