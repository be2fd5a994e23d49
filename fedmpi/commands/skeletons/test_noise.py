"""NAME keeps the laws of label noise, and has the rates of its formula."""

import numpy as np
import pytest

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_noise():
    laws.check("noise", "NAME:NAME")


def test_rates_grow_over_the_clients():
    assert NAME(most=0.5).rates(3, np.random.default_rng(0)).tolist() == [0, 0.25, 0.5]


def test_a_rate_above_one_is_refused():
    with pytest.raises(ValueError, match=r"most must be in \[0, 1\], got 2"):
        NAME(most=2)
