"""A small learnable task of images without a download: one smooth prototype per class plus
pixel noise.

    x = prototype[y] + noise * N(0, 1),   prototype = 4 x 4 standard normal blocks, enlarged to size x size

Targets that are no classes weigh the prototypes: x = sum_c y[c] prototype[c] + noise * N(0, 1),
where y[c] is drawn from N(0, 1) for values and is 0 or 1, a coin's, for labels. Values are then
a linear function of x, up to the noise.
"""

from typing import Literal

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked, moments
from fedmpi.core.rng import Purpose, stream

BLOCKS = 4


def synthetic(data_dir, classes: int = 10, samples: int = 1000, size: int = 8, channels: int = 1,
              noise: float = 1.0, test: int = 0, seed: int = 0,
              targets: Literal["classes", "values", "labels"] = "classes"):
    """Blobs (samples + test, channels, size, size) float32, classes balanced; ``data_dir`` is
    not read. ``test`` 0: a quarter of ``samples``. ``targets`` values or labels: ``classes`` of
    them a sample, values for --task regression and labels for --task multi-label.

    ``seed`` belongs to the task and not to the run, so that runs of several seeds share one task.

    Paper: none: made here.
    """
    fewest = 2 if targets == "classes" else 1
    for key, value, least in (("classes", classes, fewest), ("samples", samples, 4), ("size", size, 1),
                              ("channels", channels, 1), ("noise", noise, 0), ("test", test, 0), ("seed", seed, 0)):
        if not value >= least:
            raise ValueError(f"{key} must be >= {least}, got {value}")
    gen = stream(seed, Purpose.DATA)
    blocks = gen.standard_normal((classes, channels, BLOCKS, BLOCKS), np.float32)
    row = np.arange(size) * BLOCKS // size
    prototypes = np.ascontiguousarray(blocks[:, :, row[:, None], row])
    draw = {"classes": _draw, "values": _draw_values, "labels": _draw_labels}[targets]
    x_train, y_train = draw(prototypes, samples, noise, gen)
    x_test, y_test = draw(prototypes, test or samples // 4, noise, gen)
    mean, std = moments(x_train)
    classes = classes if targets == "classes" else 0
    return checked(Dataset(x_train, y_train, x_test, y_test, classes, mean, std), "synthetic")


def _draw(prototypes, samples, noise, gen):
    y = gen.permutation(np.arange(samples) % len(prototypes))
    x = prototypes[y]
    x += np.float32(noise) * gen.standard_normal(x.shape, np.float32)
    return x, y.astype(np.int64)


def _draw_values(prototypes, samples, noise, gen):
    y = gen.standard_normal((samples, len(prototypes)), np.float32)
    return _mixed(prototypes, y, noise, gen), y


def _draw_labels(prototypes, samples, noise, gen):
    y = gen.integers(0, 2, (samples, len(prototypes)), np.uint8)
    return _mixed(prototypes, y, noise, gen), y


def _mixed(prototypes, y, noise, gen):
    """(samples, channels, size, size) float32: the prototypes weighed by ``y (samples,
    classes)``, and noise."""
    x = np.zeros((len(y), *prototypes.shape[1:]), np.float32)
    # One prototype after the other: the bits of a matrix product depend on the machine.
    for weights, prototype in zip(y.T.astype(np.float32), prototypes):
        x += weights[:, None, None, None] * prototype
    x += np.float32(noise) * gen.standard_normal(x.shape, np.float32)
    return x
