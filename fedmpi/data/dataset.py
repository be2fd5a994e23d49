"""What a data set is, the checks it must pass, and how raw pixels become a network's input.

A loader is ``loader(data_dir, **options) -> Dataset``: arrays and nothing else. Pixels stay uint8 until
``inputs`` normalises the shard of one client: ``(x / 255 - mean) / std`` per channel (float32 is not divided).
"""

import hashlib
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.errors import DataError

CHUNK = 4096    # samples per step of a statistic: bounds the float64 copy
CACHED = 1 << 15    # values of one that is to stay in a core's cache


class Dataset(NamedTuple):
    """Arrays of one classification task; nothing is checked before ``check``."""

    x_train: np.ndarray     # (N, C, H, W) images or (N, F) features, uint8 or float32, C-contiguous
    y_train: np.ndarray     # (N,) int64 in [0, classes)
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    mean: tuple             # a float per channel, one for features; applies after uint8 is divided by 255
    std: tuple


def check(dataset, name):
    """The same data set; raises ``DataError`` with one line at the first thing that is wrong."""
    d = dataset
    _check_part(d.x_train, d.y_train, d.classes, name, "train")
    _check_part(d.x_test, d.y_test, d.classes, name, "test")
    _require(d.x_train.shape[1:] == d.x_test.shape[1:] and d.x_train.dtype == d.x_test.dtype, name,
             f"x_train and x_test must agree in sample shape and dtype, got {d.x_train.shape[1:]} {d.x_train.dtype} "
             f"and {d.x_test.shape[1:]} {d.x_test.dtype}; convert one of them")
    channels = d.x_train.shape[1] if d.x_train.ndim == 4 else 1
    for key, values in (("mean", d.mean), ("std", d.std)):
        _require(len(values) == channels and all(np.isfinite(values)), name,
                 f"{key} must hold {channels} finite numbers, one per channel, got {values}")
    _require(min(d.std) > 0, name, f"std must be > 0, got {d.std}; use 1 for a constant channel")
    return dataset


def _check_part(x, y, classes, name, part):
    _require(isinstance(x, np.ndarray) and isinstance(y, np.ndarray), name,
             f"x_{part} and y_{part} must be numpy arrays, got {type(x).__name__} and {type(y).__name__}")
    _require(x.dtype in (np.uint8, np.float32), name,
             f"x_{part} must be uint8 or float32, got {x.dtype}; convert it with astype")
    _require(x.ndim in (2, 4), name,
             f"x_{part} must be images (N, C, H, W) or features (N, F), got shape {x.shape}; reshape it")
    _require(y.ndim == 1 and y.dtype == np.int64, name,
             f"y_{part} must be (N,) int64, got {y.shape} {y.dtype}; use y.reshape(-1).astype(numpy.int64)")
    _require(len(x) == len(y), name, f"x_{part} and y_{part} must be as long, got {len(x)} and {len(y)}")
    _require(x.size > 0, name, f"x_{part} must not be empty, got shape {x.shape}; add samples")
    _require(x.flags.c_contiguous, name, f"x_{part} must be C-contiguous; use numpy.ascontiguousarray")
    _require(x.dtype == np.uint8 or all(np.isfinite(part).all() for part in _chunks(x)), name,
             f"x_{part} must be finite, got NaN or infinity; clean the data")
    _require(classes >= 2, name, f"classes must be at least 2, got {classes}")
    _require(y.min() >= 0 and y.max() < classes, name,
             f"y_{part} must lie in [0, {classes}), got {y.min()} to {y.max()}; shift the labels or raise classes")


def _require(ok, name, text):
    if not ok:
        raise DataError(f"data set {name}: {text}")


def digest(dataset):
    """The sha256, in hex, of the four arrays with their names, dtypes and shapes, and of ``classes``."""
    sha = hashlib.sha256(f"classes {dataset.classes}".encode())
    for name in ("x_train", "y_train", "x_test", "y_test"):
        array = np.ascontiguousarray(getattr(dataset, name))
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()


def inputs(x, mean, std):
    """Normalised float32 of the shape of ``x``, a torch uint8 or float32 tensor on any device; never ``x`` itself."""
    scale, shift = _scale_and_shift(255.0 if x.dtype == torch.uint8 else 1.0, tuple(mean), tuple(std), x.ndim, x.device)
    return (x * scale).add_(shift)


@lru_cache(maxsize=8)
def _scale_and_shift(unit, mean, std, ndim, device):
    shape = (1, -1) + (1,) * (ndim - 2)
    return (torch.tensor([1 / (unit * s) for s in std], dtype=torch.float32, device=device).view(shape),
            torch.tensor([-m / s for m, s in zip(mean, std)], dtype=torch.float32, device=device).view(shape))


def laid(x):
    """``x`` with images (n, C, H, W) on a CPU laid out channels last, whatever their stride says of C = 1: convolutions
    there then take two thirds of the time, and evaluation less than half."""
    return x.to(memory_format=torch.channels_last) if x.ndim == 4 and x.device.type == "cpu" else x


def moments(x):
    """``(mean, std)``, tuples per channel of ``x`` (N, C, H, W), of all entries of (N, F); uint8 counts in 255ths.

    A constant channel gets the standard deviation 1.
    """
    mean, std = _whole_moments(x) if x.dtype == np.uint8 else _real_moments(x)
    std = np.where(std > 0, std, 1.0)
    return tuple(np.atleast_1d(mean).tolist()), tuple(np.atleast_1d(std).tolist())


def _real_moments(x):
    axes, shape = ((0, 2, 3), (1, -1, 1, 1)) if x.ndim == 4 else ((0, 1), (1, 1))
    size = x.size / (x.shape[1] if x.ndim == 4 else 1)
    mean = sum(part.sum(axes, dtype=np.float64) for part in _chunks(x)) / size
    centre = np.reshape(mean, shape)
    return mean, np.sqrt(sum(np.square(part - centre).sum(axes) for part in _chunks(x)) / size)


def _whole_moments(x):
    """Those of uint8, exact before the last division: float64 holds such sums of squares of 10^11 pixels, and one pass
    in a core's cache takes a tenth of the time of two with a centre."""
    mean, std = [], []
    for pixels in x.swapaxes(0, 1) if x.ndim == 4 else [x]:
        first, second, step = 0, 0, max(1, CACHED // pixels[0].size)
        for start in range(0, len(pixels), step):
            part = pixels[start: start + step].astype(np.float64).reshape(-1)
            first, second = first + int(part.sum()), second + int(part @ part)
        mean.append(first / (255 * pixels.size))
        std.append(math.sqrt(pixels.size * second - first * first) / (255 * pixels.size))
    return mean, np.array(std)


def _chunks(x):
    return (x[i:i + CHUNK] for i in range(0, len(x), CHUNK))
