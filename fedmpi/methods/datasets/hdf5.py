"""The user's own data: an HDF5 file of ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

The number of dimensions is the sort of sample, unless ``layout`` names it:

    (N, F)        features
    (N, 1, L)     signals of one channel, which stay (1, L)
    (N, H, W)     grey images, which become (1, H, W); whole numbers other than uint8 stay (H, W)
    (N, H, W, C)  images, if the last size is 1 or 3 and the second is not; they become (C, H, W)
    (N, C, H, W)  images, if the second size is 1 or 3 and the last is not

Any other shape is refused unless ``layout`` names it: ``nchw`` or ``nhwc`` images, ``nhw`` grey
images, ``ncl`` or ``nlc`` signals of C channels and length L, or ``as-is``: the model gets
samples in the file's own shape.

A model gets values as follows, unless ``normalise`` is true or false:

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
from typing import Literal, NamedTuple

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.dataset import CHUNK, WHOLE, Dataset, checked, moments, unscaled
from fedmpi.methods.datasets.labels import NUMBERS, labelled
from fedmpi.methods.datasets.owners import NAMES as OWNERS
from fedmpi.methods.datasets.owners import owned, owners_text

NAMES = ("x_train", "y_train", "x_test", "y_test")
# The number of dimensions of each; None: any.
LAYOUTS = {"auto": None, "nchw": 4, "nhwc": 4, "nhw": 3, "ncl": 3, "nlc": 3, "as-is": None}
IMAGES = ("nchw", "nhwc", "nhw")
# Layouts with an axis of channels, each normalised by itself.
CHANNELS = (*IMAGES, "ncl", "nlc")
NORMALISE = ("auto", "true", "false")


def hdf5(data_dir, file: str = "data.h5",
         layout: Literal["auto", "nchw", "nhwc", "nhw", "ncl", "nlc", "as-is"] = "auto",
         classes: int = 0, normalise: Literal["auto", "true", "false"] = "auto",
         targets: Literal["classes", "values", "labels"] = "classes"):
    """The data in ``file``, relative to ``data_dir`` or absolute.

    ``classes=0`` stands for the number of distinct labels. ``targets`` is the kind of
    ``y_train`` and ``y_test``: classes; values, for --task regression; or rows of 0 and 1, a
    label a column, for --task multi-label.

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
    arrays, other_names = read_arrays(path, NAMES, OWNERS)
    x_train, x_test = _values(arrays["x_train"], arrays["x_test"], path)
    if classes and targets != "classes":
        raise ValueError(f"classes has no effect with targets={targets}; leave it out")
    labels = labelled(arrays["y_train"], arrays["y_test"], classes, targets, path)
    client, client_names = owned(arrays, len(x_train), path)
    form = _layout(x_train, layout, path)
    lines = labels.lines
    if layout == "auto":
        lines = _layout_lines(x_train.shape, form) + lines
    if client_names:
        lines += (owners_text(client, client_names),)
    if other_names:
        lines += (f"not read: {', '.join(other_names)}",)
    samples = _scaled(_samples(x_train, form), _samples(x_test, form), form, normalise)
    dataset = Dataset(
        x_train=samples.x_train,
        y_train=labels.y_train,
        x_test=samples.x_test,
        y_test=labels.y_test,
        classes=labels.classes,
        mean=samples.mean,
        std=samples.std,
        names=labels.names,
        client=client,
        client_names=client_names,
        ids=samples.ids,
        remarks=lines,
    )
    return checked(dataset, path)


# ---------------------------------------------------------------- values


def _values(x_train, x_test, path):
    """The samples as uint8, float32 or a dtype of ``WHOLE``, both alike.

    DataError in one line for others.
    """
    # By families: both may differ in width, int32 and int64 for instance.
    family = _family(x_train, "x_train", path)
    same_family = family == _family(x_test, "x_test", path)
    same_shape = x_train.shape[1:] == x_test.shape[1:]
    if not (same_shape and same_family):
        raise DataError(f"data set {path}: x_train and x_test must agree in sample shape and "
                        f"dtype, got {x_train.shape[1:]} {x_train.dtype} and {x_test.shape[1:]} "
                        f"{x_test.dtype}; convert one")
    if family == "floats":
        return _floats(x_train, "x_train", path), _floats(x_test, "x_test", path)
    if family == "pixels":
        return x_train, x_test
    return _whole(x_train, x_test, path)


def _family(x, name, path):
    """"pixels" for uint8, "whole" for other integers, "floats" for real and truth values.

    DataError in one line for arrays that hold no samples.
    """
    if x.dtype.kind not in NUMBERS:
        raise DataError(f"data set {path}: {name} must be numbers, got {x.dtype}; store pixels "
                        "0..255 as uint8, anything else as float32 or, where values are ids, "
                        "int64; all samples of one shape")
    if x.ndim == 1:
        raise DataError(f"data set {path}: {name}: samples must be arrays, got one number a "
                        f"sample, shape {x.shape}; if that is meant, store x.reshape(-1, 1)")
    if x.size == 0 or x.ndim == 0:
        raise DataError(f"data set {path}: {name} must not be empty, got shape {x.shape}; "
                        "add samples")
    if x.dtype == np.uint8:
        return "pixels"
    if x.dtype.kind in "iu":
        return "whole"
    return "floats"


def _floats(x, name, path):
    largest = np.finfo(np.float32).max
    if x.dtype.kind == "f" and not np.all(np.abs(x) <= largest):
        raise DataError(f"data set {path}: {name} must be finite in float32, got NaN, infinity or "
                        "too large a number; clean the data")
    return x.astype(np.float32, copy=False)


def _whole(x_train, x_test, path):
    """Integers in the smallest dtype of ``WHOLE`` that holds both arrays."""
    low = min(int(x_train.min()), int(x_test.min()))
    high = max(int(x_train.max()), int(x_test.max()))
    for dtype in WHOLE:
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return x_train.astype(dtype), x_test.astype(dtype)
    raise DataError(f"data set {path}: whole numbers must lie below 2^63, got {high}; store them "
                    "as float32")


# ---------------------------------------------------------------- layouts


def _layout(x, layout, path):
    """"nf", "as-is" or another of ``LAYOUTS`` but auto, for the samples ``x``."""
    wanted = LAYOUTS[layout]
    if wanted not in (None, x.ndim):
        raise DataError(f"data set {path}: layout={layout} is for samples of {wanted} dimensions "
                        f"with their number, got {x.shape}; leave it out, or reshape them")
    if x.ndim == 2:
        return "nf"
    if layout != "auto":
        return layout
    if x.ndim == 3:
        return _layout_of_3(x, path)
    if x.ndim == 4:
        return _layout_of_4(x.shape, path)
    raise DataError(f"data set {path}: samples must be (N, F), (N, H, W), (N, 1, L), (N, H, W, "
                    f"C) or (N, C, H, W), got {x.shape}; say layout=as-is where the model takes "
                    "them so, or reshape them")


def _layout_of_3(x, path):
    # (N, 1, L) could be an image of one row, but hardly ever is.
    if x.shape[1] == 1:
        return "ncl"
    if x.shape[2] == 1:
        raise DataError(f"data set {path}: {x.shape} may be signals (N, L, C) of one channel or "
                        "sequences of single numbers; say layout=nlc for samples (1, "
                        f"{x.shape[1]}), or layout=as-is for {x.shape[1:]}")
    if x.dtype in WHOLE:
        return "as-is"
    return "nhw"


def _layout_of_4(shape, path):
    may_be_nchw = shape[1] in (1, 3)
    may_be_nhwc = shape[3] in (1, 3)
    if may_be_nchw != may_be_nhwc:
        return "nchw" if may_be_nchw else "nhwc"
    sizes = f"{shape[1]} and {shape[3]}"
    reason = f"neither of the sizes {sizes} is 1 or 3"
    if may_be_nchw:
        reason = f"both of the sizes {sizes} are 1 or 3"
    raise DataError(f"data set {path}: {shape} may be (N, C, H, W) or (N, H, W, C), as {reason}; "
                    "say layout=nchw or layout=nhwc, or layout=as-is where they are no images")


def _layout_lines(shape, form):
    """Lines about a guess that may be wrong, with the options for another layout."""
    if form == "nhw":
        _, a, b = shape
        return (f"samples: {shape} taken as grey images (1, {a}, {b}); if they are none, "
                f"layout=as-is keeps ({a}, {b}), layout=ncl are {a} channels, layout=nlc {b} "
                "channels",)
    if form == "ncl":
        length = shape[2]
        return (f"samples: {shape} taken as signals of one channel (1, {length}); layout=nhw makes "
                f"them images (1, 1, {length})",)
    if form == "as-is":
        _, a, b = shape
        return (f"samples: {shape} of whole numbers stay ({a}, {b}); layout=nhw makes them grey "
                "images",)
    if form == "nhwc":
        _, height, width, channels = shape
        return (f"samples: {shape} taken as images with channels last, which become "
                f"{channels, height, width}; layout=nchw says otherwise",)
    return ()


def _samples(x, layout):
    """The same samples, contiguous, in the shape of a model's inputs."""
    if layout == "nhw":
        x = x[:, None]
    if layout in ("nhwc", "nlc"):
        x = np.moveaxis(x, -1, 1)
    return np.ascontiguousarray(x)


# ---------------------------------------------------------------- normalisation


class Samples(NamedTuple):
    """Samples in their final dtype, with the mean and std of their normalisation."""

    x_train: np.ndarray
    x_test: np.ndarray
    mean: tuple
    std: tuple
    ids: bool       # whole numbers, which an nn.Embedding gets as they are


def _scaled(x_train, x_test, form, normalise):
    """The ``Samples`` in the dtype, and with the mean and std, for a model's inputs."""
    per_channel = form in CHANNELS
    is_image = form in IMAGES
    wants_floats = normalise == "true" or (normalise == "auto" and is_image)
    if x_train.dtype in WHOLE and wants_floats:
        x_train = x_train.astype(np.float32)
        x_test = x_test.astype(np.float32)
        mean, std = _moments(x_train, per_channel)
        return Samples(x_train, x_test, mean, std, ids=False)
    is_pixel = x_train.dtype == np.uint8
    # uint8 would be divided by 255.
    if normalise == "false" and is_pixel and not per_channel:
        x_train = x_train.astype(np.int16)
        x_test = x_test.astype(np.int16)
    # Whole numbers may be ids: a model with an embedding gets them as they are.
    ids = not is_image and _all_whole(x_train) and _all_whole(x_test)
    if normalise == "false" or x_train.dtype in WHOLE:
        mean, std = unscaled(x_train)
        return Samples(x_train, x_test, mean, std, ids)
    mean, std = _moments(x_train, per_channel)
    return Samples(x_train, x_test, mean, std, ids and normalise == "auto")


def _moments(x, per_channel):
    """``moments``, repeated for each channel of images without an axis of channels.

    ``checked`` wants one a channel.
    """
    mean, std = moments(x, per_channel)
    repeats = 1
    if x.ndim == 4 and not per_channel:
        repeats = x.shape[1]
    return mean * repeats, std * repeats


def _all_whole(x):
    """Whether the values are all whole numbers."""
    if x.dtype.kind != "f":
        return True
    # In parts, which bounds the memory of the copy.
    for start in range(0, len(x), CHUNK):
        part = x[start: start + CHUNK]
        if not (part == np.rint(part)).all():
            return False
    return True
