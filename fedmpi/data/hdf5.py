"""The user's own data: an HDF5 file with the arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``.

Pixels or features are uint8 (read as 255ths), float32 or float64 (taken as they are); labels are integers (N,) from
0. The number of dimensions says what a sample is:

    (N, F)        features
    (N, H, W)     grey images
    (N, H, W, C)  images, if the last size is 1 or 3 and the second is not
    (N, C, H, W)  images, if the second size is 1 or 3 and the last is not

Any other 4-dimensional shape is refused unless ``layout`` says "nhwc" or "nchw". Mean and std are those of the
training data, per channel.
"""

import os
from typing import Literal

import numpy as np

from fedmpi.data.dataset import Dataset, check, moments
from fedmpi.errors import DataError

NAMES = ("x_train", "y_train", "x_test", "y_test")
LAYOUTS = ("auto", "nchw", "nhwc")


def hdf5(data_dir, file: str = "data.h5", layout: Literal["auto", "nchw", "nhwc"] = "auto",
         classes: int = 0):
    """The data in ``file``, relative to ``data_dir`` or absolute; ``classes=0`` means the largest label plus one.

    Paper: none: your own data.
    Example: fedmpi train --dataset mine.h5
    """
    from fedmpi.store import read_arrays
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if classes < 0:
        raise ValueError(f"classes must be >= 2, or 0 for the largest label plus one, got {classes}")
    path = os.path.join(data_dir, file)
    arrays = read_arrays(path, NAMES)
    x_train, y_train, x_test, y_test = (np.asarray(arrays[name]) for name in NAMES)
    _check_raw(x_train, x_test, path)
    layout = _layout(x_train.shape, layout, path)
    x_train, x_test = _samples(x_train, layout), _samples(x_test, layout)
    y_train, y_test = _labels(y_train, "y_train", path), _labels(y_test, "y_test", path)
    classes = classes or int(max(y_train.max(), y_test.max())) + 1
    mean, std = moments(x_train)
    return check(Dataset(x_train, y_train, x_test, y_test, classes, mean, std), path)


def _check_raw(x_train, x_test, path):
    for name, x in (("x_train", x_train), ("x_test", x_test)):
        if x.dtype not in (np.uint8, np.float32, np.float64):
            raise DataError(f"data set {path}: {name} must be uint8, float32 or float64, got {x.dtype}; "
                            "store pixels 0..255 as uint8 and anything else as float32")
        if x.size == 0:
            raise DataError(f"data set {path}: {name} must not be empty, got shape {x.shape}; add samples")
        if x.dtype != np.uint8 and not np.all(np.abs(x) <= np.finfo(np.float32).max):
            raise DataError(f"data set {path}: {name} must be finite in float32, got NaN, infinity or too large "
                            "a number; clean the data")
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise DataError(f"data set {path}: x_train and x_test must agree in sample shape and dtype, got "
                        f"{x_train.shape[1:]} {x_train.dtype} and {x_test.shape[1:]} {x_test.dtype}; convert one")


def _layout(shape, layout, path):
    """"nf", "nhw", "nchw" or "nhwc", for arrays of ``shape``."""
    if len(shape) in (2, 3):
        return ("nf", "nhw")[len(shape) - 2]
    if len(shape) != 4:
        raise DataError(f"data set {path}: samples must be (N, F), (N, H, W), (N, H, W, C) or (N, C, H, W), "
                        f"got {shape}; reshape them")
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if layout == "auto" and first == last:
        raise DataError(f"data set {path}: {shape} may be (N, C, H, W) or (N, H, W, C), as "
                        f"{'both' if first else 'neither'} of the sizes {shape[1]} and {shape[3]} "
                        f"{'are' if first else 'is'} 1 or 3; say layout=nchw or layout=nhwc")
    return ("nchw" if first else "nhwc") if layout == "auto" else layout


def _samples(x, layout):
    """The same samples as contiguous (N, F) or (N, C, H, W), uint8 or float32."""
    if layout == "nhw":
        x = x[:, None]
    if layout == "nhwc":
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x, np.uint8 if x.dtype == np.uint8 else np.float32)


def _labels(y, name, path):
    if y.ndim != 1 or y.dtype.kind not in "iu" or y.size == 0:
        raise DataError(f"data set {path}: {name} must be (N,) integers, N >= 1, got {y.shape} {y.dtype}; "
                        "use y.reshape(-1).astype('int64')")
    return y.astype(np.int64)
