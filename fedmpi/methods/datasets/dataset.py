"""Data sets: the checks that one must pass, and the way from raw pixels to a network's input.

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
from fedmpi.methods.datasets import stream

# Samples per step of a statistic: bounds the float64 copy.
CHUNK = 4096
# Values per step of a statistic that is to stay in a core's cache.
CACHED = 1 << 15
# Dtypes of samples that are never normalised.
WHOLE = (np.int16, np.int32, np.int64)
# The same for tokens of a stream as well.
IDS = (*WHOLE, np.uint16)

# ---------------------------------------------------------------- checks


def checked(dataset, whose):
    """The same data set; ``DataError`` with one line at the first fault.

    The line begins with ``whose`` data set it is.
    """
    _require(isinstance(dataset, Dataset), whose,
             f"expected a fedmpi.core.parts.Dataset, got {type(dataset).__name__}; return "
             "Dataset(x_train, y_train, x_test, y_test, classes, mean, std)")
    if dataset.stream is not None:
        return stream.checked_stream(dataset, whose)
    d = dataset
    _check_part(d.x_train, d.y_train, d.classes, whose, "train")
    _check_part(d.x_test, d.y_test, d.classes, whose, "test")
    _require(_sample_type(d.x_train) == _sample_type(d.x_test), whose,
             "x_train and x_test must agree in sample shape and dtype, got "
             f"{_sample_text(d.x_train)} and {_sample_text(d.x_test)}; convert one of them")
    _require(_sample_type(d.y_train) == _sample_type(d.y_test), whose,
             "y_train and y_test must agree in shape and dtype, got "
             f"{_sample_text(d.y_train)} and {_sample_text(d.y_test)}; convert one of them")
    _check_scale(d, whose)
    _check_names(d, whose)
    return dataset


def _require(ok, name, text):
    if not ok:
        raise DataError(f"data set {name}: {text}")


def _sample_type(array):
    return array.shape[1:], array.dtype


def _sample_text(array):
    return f"{array.shape[1:]} {array.dtype}"


def _check_part(x, y, classes, name, part):
    """The samples ``x`` and targets ``y`` of the ``part`` "train" or "test"."""
    are_arrays = isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    _require(are_arrays, name,
             f"x_{part} and y_{part} must be numpy arrays, got {type(x).__name__} and "
             f"{type(y).__name__}")
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
    _require(x.flags.c_contiguous, name,
             f"x_{part} must be C-contiguous; use numpy.ascontiguousarray")
    _require(_is_finite(x), name, f"x_{part} must be finite, got NaN or infinity; clean the data")
    if classes:
        _check_range(y, classes, name, part)


def _is_finite(x):
    if x.dtype.kind != "f":
        return True
    return all(np.isfinite(part).all() for part in _chunks(x))


def _check_range(y, classes, name, part):
    """Labels in [0, classes), and two classes at least."""
    _require(classes >= 2, name,
             f"classes must be at least 2, got {classes}; a classifier needs labels of two kinds")
    lowest, highest = y.min(), y.max()
    _require(lowest >= 0 and highest < classes, name,
             f"y_{part} must lie in [0, {classes}), got {lowest} to {highest}; shift the labels "
             "or raise classes")


def _check_targets(y, name, part):
    """The targets of a data set without classes: values or labels."""
    are_values = y.dtype == np.float32 and y.ndim in (1, 2)
    are_labels = y.dtype == np.uint8 and y.ndim == 2
    _require(are_values or are_labels, name,
             f"y_{part} must be values (N,) or (N, d) float32, or labels (N, C) uint8, where "
             f"classes is 0, got {y.shape} {y.dtype}; convert it, or say how many classes there "
             "are")
    _require(y.size > 0, name, f"y_{part} must not be empty, got shape {y.shape}; add samples")
    if are_values:
        _require(bool(np.isfinite(y).all()), name,
                 f"y_{part} must be finite, got NaN or infinity; clean the data")
    else:
        _require(y.max() <= 1, name,
                 f"y_{part} must be 0 or 1 for each label, got {y.max()}; values are float32")


def label_advice(y):
    """How to make labels of ``y``, an array of another shape or type."""
    if y.dtype.kind in "SUO":
        return "use numpy.unique(y, return_inverse=True)[1]"
    if y.ndim == 2 and y.shape[1] > 1:
        return "if rows are one-hot or probabilities, use y.argmax(1)"
    return "use y.reshape(-1).astype(numpy.int64)"


def _check_scale(d, name):
    """Mean and std: one a channel for images, one or one a channel for other arrays.

    Features (N, F) have one channel.
    """
    ndim = d.x_train.ndim
    channels = d.x_train.shape[1] if ndim > 2 else 1
    allowed = {channels}
    if ndim != 4:
        allowed.add(1)
    for key, values in (("mean", d.mean), ("std", d.std)):
        fits = len(values) in allowed and all(np.isfinite(values))
        text = f"{key} must hold {channels} finite numbers, one per channel, got {values}"
        _require(fits, name, text)
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
    num_owners = len(d.client_names)
    fits = isinstance(d.client, np.ndarray) and d.client.shape == d.y_train.shape[:1]
    _require(fits and d.client.dtype == np.int64, name,
             "client must be (N,) int64, one number a training sample")
    lowest, highest = d.client.min(), d.client.max()
    _require(lowest >= 0 and highest < num_owners, name,
             f"client must lie in [0, {num_owners}), the number of client_names, got {lowest} "
             f"to {highest}")


# ---------------------------------------------------------------- what a model gets


def sample_shape(dataset):
    """The shape of a sample, without the number of samples: (T,) of windows of T tokens."""
    if dataset.stream is not None:
        return (dataset.stream.window,)
    return dataset.x_train.shape[1:]


def num_test(dataset):
    """The number of samples of the test part."""
    if dataset.stream is not None:
        return len(stream.test_starts(dataset))
    return len(dataset.y_test)


def of_test(dataset, rows=None):
    """``(x, y)``: samples of the test part and their targets, as arrays; None: all of them.

    Windows of tokens are copies, in order.
    """
    if dataset.stream is not None:
        starts = stream.test_starts(dataset)
        if rows is not None:
            starts = starts[rows]
        return stream.windows(dataset.x_test, starts, dataset.stream.window)
    if rows is None:
        return dataset.x_test, dataset.y_test
    return dataset.x_test[rows], dataset.y_test[rows]


def of_training(dataset, rows):
    """``(x, y)``: samples of the training part and their targets, copies, by their numbers.

    The number of a window is that of its first token.
    """
    if dataset.stream is not None:
        return stream.windows(dataset.x_train, rows, dataset.stream.window)
    return dataset.x_train[rows], dataset.y_train[rows]


def num_outputs(dataset, task=None):
    """How many outputs a model of these data has, by the ``task``: an Objective, or None.

    One for each class, value, label or token, unless the task wants another number."""
    if dataset.stream is not None:
        return dataset.stream.vocab
    if task is not None and task.outputs is not None:
        # A copy: a data set's own arrays may be read-only.
        targets = torch.from_numpy(dataset.y_train.copy())
        return task.outputs(targets, dataset.classes)
    if dataset.classes:
        return dataset.classes
    if dataset.y_train.ndim > 1:
        return dataset.y_train.shape[1]
    return 1


def targets_text(dataset):
    """Half a line about the targets: their number and kind."""
    if dataset.stream is not None:
        return f"the next of {dataset.stream.vocab} tokens, at each place"
    if dataset.classes:
        return f"{dataset.classes} classes"
    count = num_outputs(dataset)
    kind = "value" if dataset.y_train.dtype.kind == "f" else "label"
    if count > 1:
        kind += "s"
    return f"{count} {kind} a sample"


def digest(dataset):
    """The sha256, in hex, of ``classes`` and the four arrays with their names, dtypes, shapes."""
    sha = hashlib.sha256(f"classes {dataset.classes}".encode())
    for name in ("x_train", "y_train", "x_test", "y_test"):
        array = np.ascontiguousarray(getattr(dataset, name))
        # Without it arrays of the same bytes and other shapes would be equal.
        header = f"{name} {array.dtype.str} {array.shape}"
        sha.update(header.encode())
        sha.update(array.data)
    if dataset.stream is not None:
        facts = dataset.stream
        stretches = facts.offsets.tolist(), facts.test_offsets.tolist()
        sha.update(f"stream {facts.window} {facts.vocab} {stretches}".encode())
    return sha.hexdigest()


def model_dtype(dataset):
    """The torch dtype in which samples reach a model: int64 for whole numbers, else float32."""
    if dataset.x_train.dtype in IDS:
        return torch.int64
    return torch.float32


def unscaled(x):
    """``(mean, std)`` that change no value of ``x``."""
    channels = x.shape[1] if x.ndim == 4 else 1
    return (0.0,) * channels, (1.0,) * channels


def _is_unscaled(dataset):
    return set(dataset.mean) == {0.0} and set(dataset.std) == {1.0}


def as_they_are(dataset):
    """Whether samples reach a model unchanged: whole numbers, or floats without normalisation."""
    dtype = dataset.x_train.dtype
    if dtype in IDS:
        return True
    # uint8 without a scale is still divided by 255.
    return dtype != np.uint8 and _is_unscaled(dataset)


def whole_numbers(dataset):
    """Whether samples reach a model as whole numbers, such as ids of words.

    Noise would turn an id into another one.
    """
    return as_they_are(dataset) and (dataset.ids or dataset.x_train.dtype in IDS)


def taken_as_ids(dataset):
    """The data set with its samples as whole numbers, uint8 as int16."""
    x_train, x_test = dataset.x_train, dataset.x_test
    if x_train.dtype == np.uint8:
        x_train = x_train.astype(np.int16)
        x_test = x_test.astype(np.int16)
    mean, std = unscaled(x_train)
    return dataset._replace(x_train=x_train, x_test=x_test, mean=mean, std=std)


def inputs_text(dataset):
    """Half a line: the shape and dtype of a sample in a model, and the change of its values."""
    dtype = _dtype_text(dataset)
    shape = "x".join(str(size) for size in sample_shape(dataset))
    return f"{shape} {dtype}, {_change_text(dataset)}"


def _dtype_text(dataset):
    return str(model_dtype(dataset)).removeprefix("torch.")


def _change_text(dataset):
    if as_they_are(dataset):
        return "as they are"
    if _is_unscaled(dataset):
        return "divided by 255"
    text = "normalised by mean and standard deviation"
    if len(set(dataset.mean)) > 1:
        text += " per channel"
    if dataset.ids:
        text += " (an nn.Embedding gets them as they are)"
    return text


def inputs_record(dataset, task=None):
    """The record that a run and an exported model keep of their inputs; ``task`` as ``num_outputs``."""
    return {
        "shape": list(sample_shape(dataset)),
        "dtype": _dtype_text(dataset),
        "classes": dataset.classes,
        "outputs": num_outputs(dataset, task),
        "names": list(dataset.names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
    }


def inputs(x, mean, std):
    """A model's input of ``x``, a torch tensor on any device: a new tensor of the same shape.

    uint8 and float32 are normalised as float32, other whole numbers stay as they are, as int64.
    """
    is_pixel = x.dtype == torch.uint8
    if not is_pixel and not x.is_floating_point():
        return x.to(torch.int64, copy=True)
    unit = 255.0 if is_pixel else 1.0
    scale, shift = _scale_and_shift(unit, tuple(mean), tuple(std), x.ndim, x.device)
    return (x * scale).add_(shift)


# Cached: the tensors are small, but go to a device for every client otherwise.
@lru_cache(maxsize=8)
def _scale_and_shift(unit, mean, std, ndim, device):
    """``(scale, shift)``, float32, that broadcast over the channels of ``ndim`` dimensions."""
    shape = (1, -1) + (1,) * (ndim - 2)
    scale = [1 / (unit * s) for s in std]
    shift = [-m / s for m, s in zip(mean, std)]

    def tensor(numbers):
        return torch.tensor(numbers, dtype=torch.float32, device=device).view(shape)

    return tensor(scale), tensor(shift)


def laid(x):
    """``x`` with images (n, C, H, W) on a CPU laid out channels last, even if C = 1.

    Convolutions then take two thirds of the time, and evaluation less than half.
    """
    if x.ndim == 4 and x.device.type == "cpu":
        return x.to(memory_format=torch.channels_last)
    return x


# ---------------------------------------------------------------- mean and standard deviation


def moments(x, per_channel=None):
    """``(mean, std)``, tuples per channel of ``x`` (N, C, ...), or of all its entries.

    By default per channel for images (N, C, H, W) alone. uint8 counts in 255ths. A constant
    channel gets the standard deviation 1.
    """
    if per_channel is None:
        per_channel = x.ndim == 4
    moments_of = _whole_moments if x.dtype == np.uint8 else _real_moments
    mean, std = moments_of(x, per_channel)
    # A mean is rounded, so a constant channel may seem to vary by float32's precision of it.
    varies = std > np.finfo(np.float32).eps * np.abs(mean)
    std = np.where(varies, std, 1.0)
    return _as_tuple(mean), _as_tuple(std)


def _as_tuple(numbers):
    return tuple(np.atleast_1d(numbers).tolist())


def _real_moments(x, per_channel):
    """``(mean, std)`` of float32, each a number or (C,) float64, in two passes."""
    axes = tuple(range(x.ndim))
    size = x.size
    if per_channel:
        # All axes but the channels'.
        axes = (0, *axes[2:])
        size = x.size / x.shape[1]
    total = sum(part.sum(axes, dtype=np.float64) for part in _chunks(x))
    mean = total / size
    centre = mean
    if per_channel:
        centre = mean.reshape(-1, *[1] * (x.ndim - 2))
    squares = sum(np.square(part - centre).sum(axes) for part in _chunks(x))
    variance = squares / size
    return mean, np.sqrt(variance)


def _whole_moments(x, per_channel):
    """``(mean, std)`` of uint8, each (C,) or (1,) float64, exact before the last division.

    float64 holds such sums of squares of 10^11 pixels, and one pass in a core's cache takes a
    tenth of the time of two with a centre.
    """
    channels = x.swapaxes(0, 1) if per_channel else [x]
    mean, std = [], []
    for pixels in channels:
        total, squares = _sums(pixels)
        size = pixels.size
        mean.append(total / (255 * size))
        std.append(math.sqrt(size * squares - total * total) / (255 * size))
    return np.array(mean), np.array(std)


def _sums(pixels):
    """``(sum, sum of squares)`` of uint8 ``pixels (N, ...)``, two whole numbers."""
    total = 0
    squares = 0
    step = max(1, CACHED // pixels[0].size)
    for start in range(0, len(pixels), step):
        part = pixels[start: start + step]
        values = part.astype(np.float64).reshape(-1)
        total += int(values.sum())
        squares += int(values @ values)
    return total, squares


def _chunks(x):
    return (x[i:i + CHUNK] for i in range(0, len(x), CHUNK))
