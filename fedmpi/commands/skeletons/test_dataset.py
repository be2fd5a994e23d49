"""NAME keeps the laws of data sets, and holds what it says."""

import numpy as np
import pytest

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_data_sets():
    laws.check("dataset", "NAME:NAME")


def test_without_noise_points_lie_in_the_unit_disc():
    data = NAME("", noise=0)
    assert data.x_train.shape == (900, 2)
    assert np.bincount(data.y_test).tolist() == [100, 100, 100]
    assert np.linalg.norm(data.x_train, axis=1).max() <= 1


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match="noise must be >= 0, got -1"):
        NAME("", noise=-1)
