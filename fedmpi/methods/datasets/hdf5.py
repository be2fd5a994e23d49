"""The user's own data: an HDF5 file with the arrays ``x_train``, ``y_train``, ``x_test``,
``y_test``.

The number of dimensions says what a sample is, unless ``layout`` does:

    (N, F)        features
    (N, 1, L)     signals of one channel, which stay (1, L)
    (N, H, W)     grey images, which become (1, H, W); whole numbers other than uint8 stay (H, W)
    (N, H, W, C)  images, if the last size is 1 or 3 and the second is not; they become (C, H, W)
    (N, C, H, W)  images, if the second size is 1 or 3 and the last is not

Any other shape is refused unless ``layout`` says what it is: ``nchw`` or ``nhwc`` images, ``nhw``
grey images, ``ncl`` or ``nlc`` signals of C channels and length L, or ``as-is``: the model gets
samples in the file's own shape.

What a model gets of the values, unless ``normalise`` says true or false:

    uint8, floats       normalised by mean and standard deviation of the training data, images and
                        signals per channel; but values that are all whole numbers, and no images,
                        stay as they are where the model has an nn.Embedding
    other integers      as they are, as int64; images are normalised

Labels are numbers, words or one-hot rows, values with ``targets=values``, several a sample with
``targets=labels``: see ``fedmpi.methods.datasets.labels``. A data set ``client`` (or
``client_train``) of an id a training row makes natural clients: see
``fedmpi.methods.partition.natural``.
"""

import os
from typing import Literal

import numpy as np

from fedmpi.methods.datasets.dataset import CHUNK, WHOLE, Dataset, checked, moments, unscaled
from fedmpi.methods.datasets.labels import labelled
from fedmpi.methods.datasets.owners import NAMES as OWNERS
from fedmpi.methods.datasets.owners import owned, owners_text
from fedmpi.core.errors import DataError

NAMES = ("x_train", "y_train", "x_test", "y_test")
# How many dimensions each has.
LAYOUTS = {"auto": None, "nchw": 4, "nhwc": 4, "nhw": 3, "ncl": 3, "nlc": 3, "as-is": None}
IMAGES = ("nchw", "nhwc", "nhw")
CHANNELS = (*IMAGES, "ncl", "nlc")      # those with an axis of channels, each normalised by itself
NORMALISE = ("auto", "true", "false")


def hdf5(data_dir, file: str = "data.h5",
         layout: Literal["auto", "nchw", "nhwc", "nhw", "ncl", "nlc", "as-is"] = "auto",
         classes: int = 0, normalise: Literal["auto", "true", "false"] = "auto",
         targets: Literal["classes", "values", "labels"] = "classes"):
    """The data in ``file``, relative to ``data_dir`` or absolute.

    ``classes=0`` stands for as many as there are distinct labels. ``targets`` says what
    ``y_train`` and ``y_test`` are: classes; values, for --task regression; or rows of 0 and 1,
    a label a column, for --task multi-label.

    Paper: none: your own data.
    Example: fedmpi train --dataset mine.h5
    """
    from fedmpi.store import read_arrays
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if normalise not in NORMALISE:
        raise ValueError(f"normalise must be one of {', '.join(NORMALISE)}, got {normalise!r}")
    if classes < 0:
        raise ValueError("classes must be >= 2, or 0 for as many as there are distinct labels, "
                         f"got {classes}")
    path = os.path.join(data_dir, file)
    arrays, others = read_arrays(path, NAMES, OWNERS)
    x_train, x_test = _values(arrays["x_train"], arrays["x_test"], path)
    if classes and targets != "classes":
        raise ValueError(f"classes has no effect with targets={targets}; leave it out")
    labels = labelled(arrays["y_train"], arrays["y_test"], classes, targets, path)
    client, client_names = owned(arrays, len(x_train), path)
    form = _layout(x_train, layout, path)
    told = _layout_text(x_train.shape, form) if layout == "auto" else ()
    told += labels.told + ((owners_text(client, client_names),) if client_names else ())
    told += (f"not read: {', '.join(others)}",) if others else ()
    x_train, x_test = _samples(x_train, form), _samples(x_test, form)
    x_train, x_test, mean, std, ids = _scaled(x_train, x_test, form, normalise)
    return checked(Dataset(x_train, labels.y_train, x_test, labels.y_test, labels.classes, mean, std,
                           labels.names, client, client_names, ids, told), path)


def _values(x_train, x_test, path):
    """The samples as uint8, float32 or a dtype of ``WHOLE``, both alike; DataError in one line for
    others."""
    found = []
    for name, x in (("x_train", x_train), ("x_test", x_test)):
        if x.dtype.kind not in "biuf":
            raise DataError(f"data set {path}: {name} must be numbers, got {x.dtype}; store pixels "
                            "0..255 as uint8, anything else as float32 or, where values are ids, "
                            "int64; all samples of one shape")
        if x.ndim == 1:
            raise DataError(f"data set {path}: {name}: samples must be arrays, got one number a "
                            f"sample, shape {x.shape}; if that is meant, store x.reshape(-1, 1)")
        if x.size == 0 or x.ndim == 0:
            raise DataError(f"data set {path}: {name} must not be empty, got shape {x.shape}; add samples")
        found.append(_family(x))
    if x_train.shape[1:] != x_test.shape[1:] or found[0] != found[1]:
        raise DataError(f"data set {path}: x_train and x_test must agree in sample shape and dtype, got "
                        f"{x_train.shape[1:]} {x_train.dtype} and {x_test.shape[1:]} {x_test.dtype}; convert one")
    if found[0] == "floats":
        return _floats(x_train, "x_train", path), _floats(x_test, "x_test", path)
    if found[0] == "pixels":
        return x_train, x_test
    return _whole(x_train, x_test, path)


def _family(x):
    """"pixels" for uint8, "whole" for other integers, "floats" for real numbers and for truth
    values."""
    if x.dtype == np.uint8:
        return "pixels"
    return "whole" if x.dtype.kind in "iu" else "floats"


def _floats(x, name, path):
    largest = np.finfo(np.float32).max
    if x.dtype.kind == "f" and not np.all(np.abs(x) <= largest):
        raise DataError(f"data set {path}: {name} must be finite in float32, got NaN, infinity or "
                        "too large a number; clean the data")
    return x.astype(np.float32, copy=False)


def _whole(x_train, x_test, path):
    """Integers in the smallest dtype of ``WHOLE`` that holds those of both."""
    low = min(int(x_train.min()), int(x_test.min()))
    high = max(int(x_train.max()), int(x_test.max()))
    for dtype in WHOLE:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return x_train.astype(dtype), x_test.astype(dtype)
    raise DataError(f"data set {path}: whole numbers must lie below 2^63, got {high}; store them "
                    "as float32")


def _layout(x, layout, path):
    """"nf", "as-is" or what ``LAYOUTS`` has besides auto, for the samples ``x``."""
    shape, wanted = x.shape, LAYOUTS[layout]
    if wanted not in (None, x.ndim):
        raise DataError(f"data set {path}: layout={layout} is for samples of {wanted} dimensions "
                        f"with their number, got {shape}; leave it out, or reshape them")
    if layout == "as-is":
        return "nf" if x.ndim == 2 else layout
    if layout != "auto" or x.ndim == 2:
        return "nf" if x.ndim == 2 else layout
    if x.ndim == 3:
        return _layout_of_3(x, path)
    if x.ndim != 4:
        raise DataError(f"data set {path}: samples must be (N, F), (N, H, W), (N, 1, L), (N, H, W, "
                        f"C) or (N, C, H, W), got {shape}; say layout=as-is where the model takes "
                        "them so, or reshape them")
    return _layout_of_4(shape, path)


def _layout_of_3(x, path):
    if x.shape[1] == 1:
        return "ncl"
    if x.shape[2] == 1:
        raise DataError(f"data set {path}: {x.shape} may be signals (N, L, C) of one channel or "
                        "sequences of single numbers; say layout=nlc for samples (1, "
                        f"{x.shape[1]}), or layout=as-is for {x.shape[1:]}")
    return "as-is" if x.dtype in WHOLE else "nhw"


def _layout_of_4(shape, path):
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        raise DataError(f"data set {path}: {shape} may be (N, C, H, W) or (N, H, W, C), as "
                        f"{'both' if first else 'neither'} of the sizes {shape[1]} and {shape[3]} "
                        f"{'are' if first else 'is'} 1 or 3; say layout=nchw or layout=nhwc, or "
                        "layout=as-is where they are no images")
    return "nchw" if first else "nhwc"


def _layout_text(shape, form):
    """Lines about a guess that may be wrong, and the options that say otherwise."""
    a, b = shape[1], shape[2] if len(shape) > 2 else 0
    if form == "nhw":
        return (f"samples: {shape} taken as grey images (1, {a}, {b}); if they are none, "
                f"layout=as-is keeps ({a}, {b}), layout=ncl are {a} channels, layout=nlc {b} "
                "channels",)
    if form == "ncl":
        return (f"samples: {shape} taken as signals of one channel (1, {b}); layout=nhw makes them "
                f"images (1, 1, {b})",)
    if form == "as-is":
        return (f"samples: {shape} of whole numbers stay ({a}, {b}); layout=nhw makes them grey "
                "images",)
    if form == "nhwc":
        return (f"samples: {shape} taken as images with channels last, which become "
                f"{shape[3], a, b}; layout=nchw says otherwise",)
    return ()


def _samples(x, layout):
    """The same samples, contiguous, as a model gets them."""
    if layout == "nhw":
        x = x[:, None]
    if layout in ("nhwc", "nlc"):
        x = np.moveaxis(x, -1, 1)
    return np.ascontiguousarray(x)


def _scaled(x_train, x_test, form, normalise):
    """``(x_train, x_test, mean, std, ids)``: the samples in the dtype, and with the mean and std,
    that give a model what it is to get."""
    per_channel = form in CHANNELS
    if x_train.dtype in WHOLE and (normalise == "true" or (normalise == "auto" and form in IMAGES)):
        x_train, x_test = x_train.astype(np.float32), x_test.astype(np.float32)
        return x_train, x_test, *_moments(x_train, per_channel), False
    if normalise == "false" and x_train.dtype == np.uint8 and not per_channel:
        x_train, x_test = x_train.astype(np.int16), x_test.astype(np.int16)
    ids = form not in IMAGES and _all_whole(x_train) and _all_whole(x_test)
    if normalise == "false" or x_train.dtype in WHOLE:
        return x_train, x_test, *unscaled(x_train), ids
    return x_train, x_test, *_moments(x_train, per_channel), ids and normalise == "auto"


def _moments(x, per_channel):
    """``moments`` in the number of channels that ``checked`` wants, the same in each where they are
    of all values."""
    mean, std = moments(x, per_channel)
    repeats = x.shape[1] if x.ndim == 4 and not per_channel else 1
    return mean * repeats, std * repeats


def _all_whole(x):
    """Whether the values are all whole numbers."""
    if x.dtype.kind != "f":
        return True
    parts = (x[start: start + CHUNK] for start in range(0, len(x), CHUNK))
    return all((part == np.rint(part)).all() for part in parts)
