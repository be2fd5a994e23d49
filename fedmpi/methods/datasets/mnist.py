"""MNIST and its two successors of the same format: 28 x 28 grey images.

MNIST (LeCun 1998) and Fashion-MNIST (1708.07747): 60,000 + 10,000 images of 10 classes. EMNIST
(1702.05373): six splits of letters and digits, 47 classes and 112,800 + 18,800 images in
``balanced``; its raw images are transposed and its ``letters`` count from 1, both are put right
here.
"""

from typing import Literal

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked, moments
from fedmpi.methods.datasets.raw import SOURCES, read

Split = Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"]
EMNIST_CLASSES = {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 26, "mnist": 10}


def mnist(data_dir):
    """MNIST, handwritten digits: (60000 + 10000, 1, 28, 28) uint8.

    Paper: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Proc.
        IEEE 86(11).
    """
    arrays = _arrays(*read("mnist", data_dir))
    return checked(Dataset(*arrays, classes=10, mean=(0.1307,), std=(0.3081,)), "mnist")


def fashion_mnist(data_dir):
    """Fashion-MNIST, pieces of clothing: (60000 + 10000, 1, 28, 28) uint8.

    Paper: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
        Machine Learning Algorithms", arXiv 1708.07747.
    """
    arrays = _arrays(*read("fashion-mnist", data_dir))
    return checked(Dataset(*arrays, classes=10, mean=(0.2860,), std=(0.3530,)), "fashion-mnist")


def emnist(data_dir, split: Split = "balanced"):
    """EMNIST, handwritten letters and digits: (N, 1, 28, 28) uint8, upright; mean and std are
    those of the split.

    Paper: Cohen et al. 2017, "EMNIST: an extension of MNIST to handwritten letters", arXiv
        1702.05373.
    """
    if split not in SOURCES["emnist"].splits:
        raise ValueError(f"split must be one of {', '.join(SOURCES['emnist'].splits)}, got {split!r}")
    first = 1 if split == "letters" else 0
    x_train, y_train, x_test, y_test = _arrays(*read("emnist", data_dir, split))
    x_train, x_test = (np.ascontiguousarray(x.transpose(0, 1, 3, 2)) for x in (x_train, x_test))
    mean, std = moments(x_train)
    dataset = Dataset(x_train, y_train - first, x_test, y_test - first, EMNIST_CLASSES[split], mean, std)
    return checked(dataset, "emnist")


def _arrays(train, test):
    return tuple(array for part in (train, test) for array in (part.data.numpy()[:, None], part.targets.numpy()))
