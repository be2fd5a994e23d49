"""SVHN, house numbers in street photographs (Netzer 2011): 73,257 + 26,032 colour images.

The 10 classes are unbalanced.
"""

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked
from fedmpi.methods.datasets.raw import read

# Of the training data, per channel.
MEAN = (0.4377, 0.4438, 0.4728)
STD = (0.1980, 0.2010, 0.1970)


def svhn(data_dir):
    """SVHN, cropped digits: (73257 + 26032, 3, 32, 32) uint8; the digit 0 is class 0.

    Paper: Netzer et al. 2011, "Reading Digits in Natural Images with Unsupervised Feature
        Learning", NIPS workshop.
    """
    train, test = read("svhn", data_dir)
    dataset = Dataset(*_arrays(train), *_arrays(test), classes=10, mean=MEAN, std=STD)
    return checked(dataset, "svhn")


def _arrays(part):
    """``(images, labels)`` of torchvision's object."""
    images = np.ascontiguousarray(part.data)
    labels = np.asarray(part.labels, np.int64)
    return images, labels
