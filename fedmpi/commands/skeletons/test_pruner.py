"""NAME keeps the laws of pruners, and keeps as many weights as it is told."""

import numpy as np
import pytest

from fedmpi import laws
from fedmpi.core.parts import Round
from NAME import NAME


def test_it_keeps_the_laws_of_pruners():
    laws.check("pruner", "NAME:NAME")


def test_half_of_the_weights_live():
    layout, x = laws.small_layout()
    _, mask = NAME(sparsity=0.5).init(layout, x, Round(0, 10), np.random.default_rng(0))
    assert int(mask.sum()) == layout.num_weights // 2


def test_a_sparsity_of_one_is_refused():
    with pytest.raises(ValueError, match="sparsity must be"):
        NAME(sparsity=1)
