"""MNIST and its two successors of the same format: 28 x 28 grey images.

MNIST (LeCun 1998) and Fashion-MNIST (1708.07747): 60,000 + 10,000 images of 10 classes. EMNIST
(1702.05373): six splits of letters and digits, 47 classes and 112,800 + 18,800 images in
``balanced``; its raw images are transposed and its ``letters`` count from 1, both are put right
here.
"""

from typing import Literal

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked, moments
from fedmpi.methods.datasets.raw import EMNIST_SPLITS, read

Split = Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"]
EMNIST_CLASSES = {
    "balanced": 47,
    "byclass": 62,
    "bymerge": 47,
    "digits": 10,
    "letters": 26,
    "mnist": 10,
}


def mnist(data_dir):
    """MNIST, handwritten digits: (60000 + 10000, 1, 28, 28) uint8.

    Paper: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Proc.
        IEEE 86(11).
    """
    train, test = read("mnist", data_dir)
    dataset = Dataset(*_arrays(train), *_arrays(test), classes=10, mean=(0.1307,), std=(0.3081,))
    return checked(dataset, "mnist")


def fashion_mnist(data_dir):
    """Fashion-MNIST, pieces of clothing: (60000 + 10000, 1, 28, 28) uint8.

    Paper: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
        Machine Learning Algorithms", arXiv 1708.07747.
    """
    train, test = read("fashion-mnist", data_dir)
    dataset = Dataset(*_arrays(train), *_arrays(test), classes=10, mean=(0.2860,), std=(0.3530,))
    return checked(dataset, "fashion-mnist")


def emnist(data_dir, split: Split = "balanced"):
    """EMNIST, handwritten letters and digits: (N, 1, 28, 28) uint8, upright.

    Mean and std are the split's.

    Paper: Cohen et al. 2017, "EMNIST: an extension of MNIST to handwritten letters", arXiv
        1702.05373.
    """
    if split not in EMNIST_SPLITS:
        raise ValueError(f"split must be one of {', '.join(EMNIST_SPLITS)}, got {split!r}")
    train, test = read("emnist", data_dir, split)
    x_train, y_train = _arrays(train)
    x_test, y_test = _arrays(test)
    x_train = _upright(x_train)
    x_test = _upright(x_test)
    # Its labels count from 1.
    if split == "letters":
        y_train = y_train - 1
        y_test = y_test - 1
    mean, std = moments(x_train)
    dataset = Dataset(x_train, y_train, x_test, y_test, EMNIST_CLASSES[split], mean, std)
    return checked(dataset, "emnist")


def _arrays(part):
    """``(images (N, 1, 28, 28), labels (N,))`` of torchvision's object."""
    images = part.data.numpy()
    return images[:, None], part.targets.numpy()


def _upright(images):
    return np.ascontiguousarray(images.transpose(0, 1, 3, 2))
