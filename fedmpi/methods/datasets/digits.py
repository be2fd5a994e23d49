"""scikit-learn's bundled digits: 1,797 grey images of 8 x 8 pixels, 10 classes; needs no download.

Values 0..16 become float32 in [0, 1]. A fifth of every class is the test set, the same in every
run.
"""

import numpy as np

from fedmpi.methods.datasets.dataset import Dataset, checked, moments
from fedmpi.core.rng import Purpose, stream

TEST_FRAC = 0.2


def digits(data_dir):
    """The 8 x 8 digits: about (1437 + 360, 1, 8, 8) float32; ``data_dir`` is not read.

    Paper: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    from sklearn.datasets import load_digits
    values, labels = load_digits(return_X_y=True)
    x = (values / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    y = labels.astype(np.int64)
    test = _is_test(y, stream(0, Purpose.DATA))
    mean, std = moments(x[~test])
    return checked(Dataset(x[~test], y[~test], x[test], y[test], 10, mean, std), "digits")


def _is_test(y, gen):
    """``(N,) bool``: the stratified test samples."""
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = gen.permutation(np.flatnonzero(y == label))
        test[members[:round(TEST_FRAC * len(members))]] = True
    return test
