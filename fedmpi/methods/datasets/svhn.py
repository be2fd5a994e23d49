"""SVHN, house numbers in street photographs (Netzer 2011): 73,257 + 26,032 colour images, 10
classes, unbalanced."""

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked
from fedmpi.methods.datasets.raw import read


def svhn(data_dir):
    """SVHN, cropped digits: (73257 + 26032, 3, 32, 32) uint8; the digit 0 is class 0.

    Paper: Netzer et al. 2011, "Reading Digits in Natural Images with Unsupervised Feature
        Learning", NIPS workshop.
    """
    arrays = (array for part in read("svhn", data_dir)
              for array in (np.ascontiguousarray(part.data), np.asarray(part.labels, np.int64)))
    return checked(Dataset(*arrays, classes=10, mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970)), "svhn")
