"""A small learnable task of images without a download: one smooth prototype per class plus pixel noise.

    x = prototype[y] + noise * N(0, 1),   prototype = 4 x 4 standard normal blocks, enlarged to size x size
"""

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked, moments
from fedmpi.core.rng import Purpose, stream

BLOCKS = 4


def synthetic(data_dir, classes: int = 10, samples: int = 1000, size: int = 8, channels: int = 1,
              noise: float = 1.0, test: int = 0, seed: int = 0):
    """Blobs (samples + test, channels, size, size) float32, classes balanced; ``data_dir`` is not read. ``test`` 0: a
    quarter of ``samples``.

    ``seed`` belongs to the task and not to the run, so that runs of several seeds share one task.

    Paper: none: made here.
    """
    for key, value, least in (("classes", classes, 2), ("samples", samples, 4), ("size", size, 1),
                              ("channels", channels, 1), ("noise", noise, 0), ("test", test, 0), ("seed", seed, 0)):
        if not value >= least:
            raise ValueError(f"{key} must be >= {least}, got {value}")
    gen = stream(seed, Purpose.DATA)
    blocks = gen.standard_normal((classes, channels, BLOCKS, BLOCKS), np.float32)
    row = np.arange(size) * BLOCKS // size
    prototypes = np.ascontiguousarray(blocks[:, :, row[:, None], row])
    x_train, y_train = _draw(prototypes, samples, noise, gen)
    x_test, y_test = _draw(prototypes, test or samples // 4, noise, gen)
    mean, std = moments(x_train)
    return checked(Dataset(x_train, y_train, x_test, y_test, classes, mean, std), "synthetic")


def _draw(prototypes, samples, noise, gen):
    y = gen.permutation(np.arange(samples) % len(prototypes))
    x = prototypes[y]
    x += np.float32(noise) * gen.standard_normal(x.shape, np.float32)
    return x, y.astype(np.int64)
