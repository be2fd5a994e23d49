"""scikit-learn's bundled digits: 1,797 grey images of 8 x 8 pixels, 10 classes; no download.

Values 0..16 become float32 in [0, 1]. A fifth of every class is the test set, the same in every
run.
"""

import numpy as np

from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.dataset import Dataset, checked, moments

TEST_FRAC = 0.2
LARGEST = 16        # value of a pixel


def digits(data_dir):
    """The 8 x 8 digits: about (1437 + 360, 1, 8, 8) float32; ``data_dir`` is not read.

    Paper: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    from sklearn.datasets import load_digits
    values, labels = load_digits(return_X_y=True)
    pixels = (values / LARGEST).astype(np.float32)
    x = pixels.reshape(-1, 1, 8, 8)
    y = labels.astype(np.int64)
    # Another seed would make another data set.
    test = _is_test(y, stream(0, Purpose.DATA))
    x_train, y_train = x[~test], y[~test]
    mean, std = moments(x_train)
    dataset = Dataset(x_train, y_train, x[test], y[test], 10, mean, std)
    return checked(dataset, "digits")


def _is_test(y, gen):
    """``(N,) bool``: the stratified test samples."""
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        num_test = round(TEST_FRAC * len(members))
        chosen = gen.permutation(members)[:num_test]
        test[chosen] = True
    return test
