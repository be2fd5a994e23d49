"""The files of torchvision's data sets, opened without a download and without a picture object
per sample.

Every loader and ``fetch`` go through here, so what is searched, where, and what is said when it
is missing is the same for all.
"""

import os
import warnings
from typing import NamedTuple

from fedmpi.core.errors import DataError


class Source(NamedTuple):
    """One data set of torchvision: its class there and what is downloaded for it, relative to
    the folder."""

    kind: str
    archives: tuple
    splits: tuple = ("",)


IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
       "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
SOURCES = {
    "mnist": Source("MNIST", tuple(f"MNIST/raw/{file}" for file in IDX)),
    "fashion-mnist": Source("FashionMNIST", tuple(f"FashionMNIST/raw/{file}" for file in IDX)),
    "emnist": Source("EMNIST", ("EMNIST/raw/gzip.zip",),
                     ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")),
    "cifar10": Source("CIFAR10", ("cifar-10-python.tar.gz",)),
    "cifar100": Source("CIFAR100", ("cifar-100-python.tar.gz",)),
    "svhn": Source("SVHN", ("train_32x32.mat", "test_32x32.mat")),
}


def read(name, data_dir, split=""):
    """``(train, test)``: torchvision's two objects, whose raw arrays are ``.data`` and
    ``.targets`` or ``.labels``."""
    if not os.path.isdir(data_dir):
        raise DataError(f"data set {name}: there is no folder {_shown(data_dir)}; {_fetch_hint(name, data_dir)}")
    try:
        return tuple(opened(name, data_dir, part, split=split) for part in ("train", "test"))
    except ImportError:    # torchvision or scipy is not installed: no matter of the data
        raise
    # A damaged file fails in torchvision in a dozen ways (assertions, pickles, views of the wrong size).
    except Exception as error:
        raise DataError(f"data set {name}: nothing readable in {_shown(data_dir)} ({one_line(error)}); "
                        f"{_fetch_hint(name, data_dir)}") from error


def opened(name, data_dir, part, *, split="", download=False):
    """torchvision's data set ``name``, its ``part`` "train" or "test"; raises what torchvision
    raises."""
    from torchvision import datasets
    source = SOURCES[name]
    options = {"split": part} if name == "svhn" else {"train": part == "train"}
    if source.splits != ("",):
        options["split"] = split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")    # numpy 2.4.0 to 2.4.4 warn about the pickles of CIFAR
        return getattr(datasets, source.kind)(os.fspath(data_dir), download=download, **options)


def one_line(error):
    """The type and text of an exception, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _shown(data_dir):
    return os.path.abspath(data_dir)


def _fetch_hint(name, data_dir):
    return f"'fedmpi fetch {name} --data-dir {_shown(data_dir)}' downloads and unpacks it"
