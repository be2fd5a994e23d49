"""What a data set is, the checks it must pass, and how raw pixels become a network's input.

A loader is ``loader(data_dir, **options) -> Dataset``: arrays and nothing else. Pixels stay
uint8 until ``inputs`` normalises the shard of one client: ``(x / 255 - mean) / std`` per
channel (float32 is not divided). Other whole numbers, such as the ids of words, are never
normalised: a model gets them as int64.
"""

import hashlib
import math
from functools import lru_cache

import numpy as np
import torch

from fedmpi.core.errors import DataError
from fedmpi.core.parts import Dataset

CHUNK = 4096    # samples per step of a statistic: bounds the float64 copy
CACHED = 1 << 15    # values of one that is to stay in a core's cache
WHOLE = (np.int16, np.int32, np.int64)      # dtypes of samples that are never normalised


def checked(dataset, whose):
    """The same data set; raises ``DataError`` with one line, which begins with ``whose`` it is, at
    the first thing that is wrong."""
    _require(isinstance(dataset, Dataset), whose, f"expected a fedmpi.core.parts.Dataset, got "
             f"{type(dataset).__name__}; return Dataset(x_train, y_train, x_test, y_test, classes, "
             "mean, std)")
    d = dataset
    _check_part(d.x_train, d.y_train, d.classes, whose, "train")
    _check_part(d.x_test, d.y_test, d.classes, whose, "test")
    _require(d.x_train.shape[1:] == d.x_test.shape[1:] and d.x_train.dtype == d.x_test.dtype, whose,
             f"x_train and x_test must agree in sample shape and dtype, got {d.x_train.shape[1:]} {d.x_train.dtype} "
             f"and {d.x_test.shape[1:]} {d.x_test.dtype}; convert one of them")
    _require(d.y_train.shape[1:] == d.y_test.shape[1:] and d.y_train.dtype == d.y_test.dtype, whose,
             f"y_train and y_test must agree in shape and dtype, got {d.y_train.shape[1:]} {d.y_train.dtype} and "
             f"{d.y_test.shape[1:]} {d.y_test.dtype}; convert one of them")
    _check_scale(d, whose)
    _check_names(d, whose)
    return dataset


def _check_part(x, y, classes, name, part):
    _require(isinstance(x, np.ndarray) and isinstance(y, np.ndarray), name,
             f"x_{part} and y_{part} must be numpy arrays, got {type(x).__name__} and {type(y).__name__}")
    _require(x.dtype in (np.uint8, np.float32, *WHOLE), name,
             f"x_{part} must be uint8 or float32, or whole numbers as int16, int32 or int64, got "
             f"{x.dtype}; convert it with astype")
    _require(x.ndim >= 2, name,
             f"x_{part} must be images (N, C, H, W), features (N, F) or another array of samples, "
             f"got shape {x.shape}; reshape it")
    _require(isinstance(classes, (int, np.integer)), name,
             f"classes must be a whole number, 0 where targets are no classes, got {classes!r}")
    if classes:
        _require(y.ndim == 1 and y.dtype == np.int64, name,
                 f"y_{part} must be (N,) int64, got {y.shape} {y.dtype}; {label_advice(y)}")
    else:
        _check_targets(y, name, part)
    _require(len(x) == len(y), name,
             f"x_{part} and y_{part} must be as long, got {len(x)} and {len(y)}; give every sample "
             "one label")
    _require(x.size > 0, name, f"x_{part} must not be empty, got shape {x.shape}; add samples")
    _require(x.flags.c_contiguous, name, f"x_{part} must be C-contiguous; use numpy.ascontiguousarray")
    _require(x.dtype.kind != "f" or all(np.isfinite(part).all() for part in _chunks(x)), name,
             f"x_{part} must be finite, got NaN or infinity; clean the data")
    if classes:
        _require(classes >= 2, name,
                 f"classes must be at least 2, got {classes}; a classifier needs labels of two kinds")
        _require(y.min() >= 0 and y.max() < classes, name,
                 f"y_{part} must lie in [0, {classes}), got {y.min()} to {y.max()}; shift the labels or raise classes")


def _check_targets(y, name, part):
    """Those of a data set without classes: values or labels."""
    values = y.dtype == np.float32 and y.ndim in (1, 2)
    labels = y.dtype == np.uint8 and y.ndim == 2
    _require(values or labels, name,
             f"y_{part} must be values (N,) or (N, d) float32, or labels (N, C) uint8, where classes "
             f"is 0, got {y.shape} {y.dtype}; convert it, or say how many classes there are")
    _require(y.size > 0, name, f"y_{part} must not be empty, got shape {y.shape}; add samples")
    if values:
        _require(bool(np.isfinite(y).all()), name,
                 f"y_{part} must be finite, got NaN or infinity; clean the data")
    else:
        _require(y.max() <= 1, name,
                 f"y_{part} must be 0 or 1 for each label, got {y.max()}; values are float32")


def label_advice(y):
    """How to make labels of ``y``, an array that is none, by its shape and its type."""
    if y.dtype.kind in "SUO":
        return "use numpy.unique(y, return_inverse=True)[1]"
    if y.ndim == 2 and y.shape[1] > 1:
        return "if rows are one-hot or probabilities, use y.argmax(1)"
    return "use y.reshape(-1).astype(numpy.int64)"


def _check_scale(d, name):
    """Mean and std: one a channel for images, one or one a channel for other arrays of more
    dimensions."""
    channels = d.x_train.shape[1] if d.x_train.ndim > 2 else 1
    allowed = {channels} if d.x_train.ndim == 4 else {1, channels}
    for key, values in (("mean", d.mean), ("std", d.std)):
        _require(len(values) in allowed and all(np.isfinite(values)), name,
                 f"{key} must hold {channels} finite numbers, one per channel, got {values}")
    _require(len(d.mean) == len(d.std), name,
             f"mean and std must be as many, got {len(d.mean)} and {len(d.std)}")
    _require(min(d.std) > 0, name, f"std must be > 0, got {d.std}; use 1 for a constant channel")


def _check_names(d, name):
    """Names of classes and natural clients, where there are any."""
    wanted = num_outputs(d)
    _require(len(d.names) in (0, wanted), name,
             f"names must be one a class, got {len(d.names)} for {wanted} classes; leave them "
             "out or name all")
    if d.client is None:
        return
    owners = len(d.client_names)
    fits = isinstance(d.client, np.ndarray) and d.client.shape == d.y_train.shape[:1]
    _require(fits and d.client.dtype == np.int64, name,
             "client must be (N,) int64, one number a training sample")
    _require(d.client.min() >= 0 and d.client.max() < owners, name,
             f"client must lie in [0, {owners}), the number of client_names, got {d.client.min()} "
             f"to {d.client.max()}")


def _require(ok, name, text):
    if not ok:
        raise DataError(f"data set {name}: {text}")


def num_outputs(dataset):
    """How many outputs a model of these data has: one a class, value or label."""
    if dataset.classes:
        return dataset.classes
    return dataset.y_train.shape[1] if dataset.y_train.ndim > 1 else 1


def targets_text(dataset):
    """Half a line: what targets are."""
    y = dataset.y_train
    if dataset.classes:
        return f"{dataset.classes} classes"
    kind = "value" if y.dtype.kind == "f" else "label"
    return f"{num_outputs(dataset)} {kind}{'s' * (num_outputs(dataset) > 1)} a sample"


def digest(dataset):
    """The sha256, in hex, of the four arrays with their names, dtypes and shapes, and of
    ``classes``."""
    sha = hashlib.sha256(f"classes {dataset.classes}".encode())
    for name in ("x_train", "y_train", "x_test", "y_test"):
        array = np.ascontiguousarray(getattr(dataset, name))
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()


def model_dtype(dataset):
    """The torch dtype in which samples reach a model: int64 for whole numbers, else float32."""
    return torch.int64 if dataset.x_train.dtype in WHOLE else torch.float32


def unscaled(x):
    """``(mean, std)`` that change no value of ``x``."""
    channels = x.shape[1] if x.ndim == 4 else 1
    return (0.0,) * channels, (1.0,) * channels


def _is_unscaled(dataset):
    return set(dataset.mean) == {0.0} and set(dataset.std) == {1.0}


def as_they_are(dataset):
    """Whether samples reach a model as the numbers that they are: whole numbers, or floats that are
    not normalised."""
    dtype = dataset.x_train.dtype
    return dtype in WHOLE or (dtype != np.uint8 and _is_unscaled(dataset))


def whole_numbers(dataset):
    """Whether samples reach a model as whole numbers, such as ids of words, which noise would turn
    into others."""
    return as_they_are(dataset) and (dataset.ids or dataset.x_train.dtype in WHOLE)


def taken_as_ids(dataset):
    """The data set with its samples as the whole numbers that they are, uint8 as int16."""
    x_train, x_test = dataset.x_train, dataset.x_test
    if x_train.dtype == np.uint8:
        x_train, x_test = x_train.astype(np.int16), x_test.astype(np.int16)
    mean, std = unscaled(x_train)
    return dataset._replace(x_train=x_train, x_test=x_test, mean=mean, std=std)


def inputs_text(dataset):
    """Half a line: the shape and dtype in which a sample reaches a model, and what is done to its
    values."""
    kind = str(model_dtype(dataset)).removeprefix("torch.")
    shape = "x".join(str(size) for size in dataset.x_train.shape[1:])
    if as_they_are(dataset):
        how = "as they are"
    elif _is_unscaled(dataset):
        how = "divided by 255"
    else:
        how = "normalised by mean and standard deviation"
        how += " per channel" * (len(set(dataset.mean)) > 1)
        how += " (an nn.Embedding gets them as they are)" * dataset.ids
    return f"{shape} {kind}, {how}"


def inputs_record(dataset):
    """What a run and an exported model record of their inputs."""
    dtype = str(model_dtype(dataset)).removeprefix("torch.")
    return {"shape": list(dataset.x_train.shape[1:]), "dtype": dtype,
            "classes": dataset.classes, "outputs": num_outputs(dataset), "names": list(dataset.names),
            "mean": list(dataset.mean), "std": list(dataset.std)}


def inputs(x, mean, std):
    """What a model gets of ``x``, a torch tensor on any device, in its shape and never ``x``
    itself: uint8 and float32 normalised as float32, other whole numbers as they are, as int64."""
    if x.dtype != torch.uint8 and not x.is_floating_point():
        return x.to(torch.int64, copy=True)
    scale, shift = _scale_and_shift(255.0 if x.dtype == torch.uint8 else 1.0, tuple(mean), tuple(std), x.ndim, x.device)
    return (x * scale).add_(shift)


@lru_cache(maxsize=8)
def _scale_and_shift(unit, mean, std, ndim, device):
    shape = (1, -1) + (1,) * (ndim - 2)
    return (torch.tensor([1 / (unit * s) for s in std], dtype=torch.float32, device=device).view(shape),
            torch.tensor([-m / s for m, s in zip(mean, std)], dtype=torch.float32, device=device).view(shape))


def laid(x):
    """``x`` with images (n, C, H, W) on a CPU laid out channels last, whatever their stride
    says of C = 1: convolutions there then take two thirds of the time, and evaluation less than
    half."""
    return x.to(memory_format=torch.channels_last) if x.ndim == 4 and x.device.type == "cpu" else x


def moments(x, per_channel=None):
    """``(mean, std)``, tuples per channel of ``x`` (N, C, ...), by default where it is (N, C, H,
    W), else of all entries; uint8 counts in 255ths.

    A constant channel gets the standard deviation 1.
    """
    per_channel = x.ndim == 4 if per_channel is None else per_channel
    mean, std = (_whole_moments if x.dtype == np.uint8 else _real_moments)(x, per_channel)
    # A mean is rounded, so a constant channel may seem to vary by what float32 cannot tell from
    # nothing.
    varies = std > np.finfo(np.float32).eps * np.abs(mean)
    std = np.where(varies, std, 1.0)
    return tuple(np.atleast_1d(mean).tolist()), tuple(np.atleast_1d(std).tolist())


def _real_moments(x, per_channel):
    axes = tuple(axis for axis in range(x.ndim) if axis != 1 or not per_channel)
    size = x.size / (x.shape[1] if per_channel else 1)
    mean = sum(part.sum(axes, dtype=np.float64) for part in _chunks(x)) / size
    centre = np.reshape(mean, (-1,) + (1,) * (x.ndim - 2)) if per_channel else mean
    return mean, np.sqrt(sum(np.square(part - centre).sum(axes) for part in _chunks(x)) / size)


def _whole_moments(x, per_channel):
    """Those of uint8, exact before the last division: float64 holds such sums of squares of
    10^11 pixels, and one pass in a core's cache takes a tenth of the time of two with a
    centre."""
    mean, std = [], []
    for pixels in x.swapaxes(0, 1) if per_channel else [x]:
        first, second, step = 0, 0, max(1, CACHED // pixels[0].size)
        for start in range(0, len(pixels), step):
            part = pixels[start: start + step].astype(np.float64).reshape(-1)
            first, second = first + int(part.sum()), second + int(part @ part)
        mean.append(first / (255 * pixels.size))
        std.append(math.sqrt(pixels.size * second - first * first) / (255 * pixels.size))
    return np.array(mean), np.array(std)


def _chunks(x):
    return (x[i:i + CHUNK] for i in range(0, len(x), CHUNK))
