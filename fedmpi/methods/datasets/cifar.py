"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour images, 10 or 100 classes.

Images are of 32 x 32 pixels. The normalisation of CIFAR-10 is the thesis's.
"""

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked
from fedmpi.methods.datasets.raw import read

# Per channel.
MEAN_10 = (0.4914, 0.4822, 0.4465)
STD_10 = (0.2023, 0.1994, 0.2010)
MEAN_100 = (0.5071, 0.4865, 0.4409)
STD_100 = (0.2673, 0.2564, 0.2762)


def cifar10(data_dir):
    """CIFAR-10: (50000 + 10000, 3, 32, 32) uint8.

    Paper: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", technical
        report.
    """
    train, test = read("cifar10", data_dir)
    dataset = Dataset(*_arrays(train), *_arrays(test), classes=10, mean=MEAN_10, std=STD_10)
    return checked(dataset, "cifar10")


def cifar100(data_dir):
    """CIFAR-100 with its fine labels: (50000 + 10000, 3, 32, 32) uint8.

    Paper: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", technical
        report.
    """
    train, test = read("cifar100", data_dir)
    dataset = Dataset(*_arrays(train), *_arrays(test), classes=100, mean=MEAN_100, std=STD_100)
    return checked(dataset, "cifar100")


def _arrays(part):
    """``(images, labels)`` of torchvision's object, whose channels are last."""
    images = part.data.transpose(0, 3, 1, 2)
    labels = np.asarray(part.targets, np.int64)
    return np.ascontiguousarray(images), labels
