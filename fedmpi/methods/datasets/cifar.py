"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32 x 32 pixels, 10
or 100 classes.

The normalisation of CIFAR-10 is the one of the thesis.
"""

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked
from fedmpi.methods.datasets.raw import read


def cifar10(data_dir):
    """CIFAR-10: (50000 + 10000, 3, 32, 32) uint8.

    Paper: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", technical
        report.
    """
    arrays = _arrays(*read("cifar10", data_dir))
    return checked(Dataset(*arrays, classes=10, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)), "cifar10")


def cifar100(data_dir):
    """CIFAR-100 with its fine labels: (50000 + 10000, 3, 32, 32) uint8.

    Paper: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", technical
        report.
    """
    arrays = _arrays(*read("cifar100", data_dir))
    return checked(Dataset(*arrays, classes=100, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
                 "cifar100")


def _arrays(train, test):
    return tuple(array for part in (train, test) for array in (
        np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.asarray(part.targets, np.int64)))
