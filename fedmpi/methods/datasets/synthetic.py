"""A small learnable task of images without a download: a smooth prototype per class, and noise.

    x = prototype[y] + noise * N(0, 1)
    prototype = 4 x 4 standard normal blocks, enlarged to size x size

Targets that are no classes weigh the prototypes: x = sum_c y[c] prototype[c] + noise * N(0, 1),
where y[c] is drawn from N(0, 1) for values and is 0 or 1, a coin's, for labels. Values are then
a linear function of x, up to the noise.
"""

from typing import Literal

import numpy as np

from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.dataset import Dataset, checked, moments

BLOCKS = 4


def synthetic(data_dir, classes: int = 10, samples: int = 1000, size: int = 8, channels: int = 1,
              noise: float = 1.0, test: int = 0, seed: int = 0,
              targets: Literal["classes", "values", "labels"] = "classes"):
    """Blobs (samples + test, channels, size, size) float32, classes balanced.

    ``data_dir`` is not read. ``test`` 0: a quarter of ``samples``. ``targets`` values or labels:
    ``classes`` of them a sample, values for --task regression and labels for --task multi-label.

    ``seed`` belongs to the task and not to the run, so that runs of several seeds share one
    task.

    Paper: none: made here.
    """
    _check(classes, samples, size, channels, noise, test, seed, targets)
    gen = stream(seed, Purpose.DATA)
    prototypes = _prototypes(classes, channels, size, gen)
    draw = {"classes": _draw, "values": _draw_values, "labels": _draw_labels}[targets]
    num_test = test or samples // 4
    x_train, y_train = draw(prototypes, samples, noise, gen)
    x_test, y_test = draw(prototypes, num_test, noise, gen)
    mean, std = moments(x_train)
    num_classes = classes if targets == "classes" else 0
    dataset = Dataset(x_train, y_train, x_test, y_test, num_classes, mean, std)
    return checked(dataset, "synthetic")


def _check(classes, samples, size, channels, noise, test, seed, targets):
    """ValueError for the first option that is too small."""
    fewest = 2 if targets == "classes" else 1
    options = (
        ("classes", classes, fewest),
        ("samples", samples, 4),
        ("size", size, 1),
        ("channels", channels, 1),
        ("noise", noise, 0),
        ("test", test, 0),
        ("seed", seed, 0),
    )
    for key, value, least in options:
        # not <, so that NaN is refused too.
        if not value >= least:
            raise ValueError(f"{key} must be >= {least}, got {value}")


def _prototypes(classes, channels, size, gen):
    """(classes, channels, size, size) float32: random blocks, enlarged."""
    blocks = gen.standard_normal((classes, channels, BLOCKS, BLOCKS), np.float32)
    block_of = np.arange(size) * BLOCKS // size
    enlarged = blocks[:, :, block_of[:, None], block_of]
    return np.ascontiguousarray(enlarged)


# Three kinds of samples: ``(x (samples, channels, size, size) float32, targets)``.


def _draw(prototypes, samples, noise, gen):
    balanced = np.arange(samples) % len(prototypes)
    y = gen.permutation(balanced)
    x = prototypes[y]
    _add_noise(x, noise, gen)
    return x, y.astype(np.int64)


def _draw_values(prototypes, samples, noise, gen):
    y = gen.standard_normal((samples, len(prototypes)), np.float32)
    return _mixed(prototypes, y, noise, gen), y


def _draw_labels(prototypes, samples, noise, gen):
    y = gen.integers(0, 2, (samples, len(prototypes)), np.uint8)
    return _mixed(prototypes, y, noise, gen), y


def _mixed(prototypes, y, noise, gen):
    """(samples, channels, size, size) float32: prototypes weighed by ``y (samples, classes)``."""
    x = np.zeros((len(y), *prototypes.shape[1:]), np.float32)
    # One prototype after the other: the bits of a matrix product depend on the machine.
    columns = y.T.astype(np.float32)
    for weights, prototype in zip(columns, prototypes):
        x += weights[:, None, None, None] * prototype
    _add_noise(x, noise, gen)
    return x


def _add_noise(x, noise, gen):
    """Add N(0, noise^2) to ``x`` in place."""
    x += np.float32(noise) * gen.standard_normal(x.shape, np.float32)
