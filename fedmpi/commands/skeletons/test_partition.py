"""NAME keeps the laws of partitions, and deals as its formula says."""

import numpy as np
import pytest

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_partitions():
    laws.check("partition", "NAME:NAME")


def test_half_a_ratio_halves_the_sizes():
    labels = np.zeros(73, np.int64)
    parts = NAME(ratio=0.5)(labels, 3, np.random.default_rng(0))
    assert [len(part) for part in parts] == [41, 21, 11]


def test_a_ratio_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\], got 0"):
        NAME(ratio=0)
