"""NAME keeps the laws of feature skew, and changes inputs as its formula says."""

import numpy as np
import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_features():
    laws.check("features", "NAME:NAME")


def test_the_last_client_is_brightest():
    part = NAME(brightest=1.0)
    gen = np.random.default_rng(0)
    levels = part.levels(3, gen)
    changed = part.apply(torch.zeros(1, 2), None, levels[-1], 10, gen)
    assert levels.tolist() == [0, 0.5, 1] and changed.tolist() == [[1, 1]]


def test_darkness_is_refused():
    with pytest.raises(ValueError, match="brightest must be >= 0, got -1"):
        NAME(brightest=-1)
