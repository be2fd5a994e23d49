"""The files of torchvision's data sets, opened without a download.

No picture object is made for a sample. Every loader and ``fetch`` go through here, so all of
them search the same files, in the same place, and say the same when one is missing.
"""

import os
import warnings
from typing import NamedTuple

from fedmpi.core.errors import DataError


class Source(NamedTuple):
    """One data set of torchvision: its class there and its downloads, relative to the folder."""

    kind: str
    archives: tuple
    splits: tuple = ("",)


IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
       "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
EMNIST_SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
SOURCES = {
    "mnist": Source("MNIST", tuple(f"MNIST/raw/{file}" for file in IDX)),
    "fashion-mnist": Source("FashionMNIST", tuple(f"FashionMNIST/raw/{file}" for file in IDX)),
    "emnist": Source("EMNIST", ("EMNIST/raw/gzip.zip",), EMNIST_SPLITS),
    "cifar10": Source("CIFAR10", ("cifar-10-python.tar.gz",)),
    "cifar100": Source("CIFAR100", ("cifar-100-python.tar.gz",)),
    "svhn": Source("SVHN", ("train_32x32.mat", "test_32x32.mat")),
}


def read(name, data_dir, split=""):
    """``(train, test)``: torchvision's two objects of data set ``name``.

    Their raw arrays are ``.data`` and ``.targets`` or ``.labels``. DataError where none is
    readable.
    """
    if not os.path.isdir(data_dir):
        raise DataError(f"data set {name}: there is no folder {_shown(data_dir)}; "
                        f"{_fetch_hint(name, data_dir)}")
    try:
        train = opened(name, data_dir, "train", split=split)
        test = opened(name, data_dir, "test", split=split)
    # torchvision or scipy is not installed: the data may be sound.
    except ImportError:
        raise
    # A damaged file fails in torchvision in a dozen ways (assertions, pickles, views of the wrong
    # size).
    except Exception as error:
        raise DataError(f"data set {name}: nothing readable in {_shown(data_dir)} "
                        f"({one_line(error)}); {_fetch_hint(name, data_dir)}") from error
    return train, test


def opened(name, data_dir, part, *, split="", download=False):
    """torchvision's data set ``name``, its ``part`` "train" or "test".

    Raises torchvision's own errors.
    """
    from torchvision import datasets
    source = SOURCES[name]
    # torchvision's classes take their part in two ways.
    options = {"train": part == "train"}
    if name == "svhn":
        options = {"split": part}
    if source.splits != ("",):
        options["split"] = split
    load = getattr(datasets, source.kind)
    with warnings.catch_warnings():
        # numpy 2.4.0 to 2.4.4 warn about the pickles of CIFAR.
        warnings.simplefilter("ignore")
        return load(os.fspath(data_dir), download=download, **options)


def one_line(error):
    """The type and text of an exception, without line breaks."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"


def _shown(data_dir):
    return os.path.abspath(data_dir)


def _fetch_hint(name, data_dir):
    return f"'fedmpi fetch {name} --data-dir {_shown(data_dir)}' downloads and unpacks it"
