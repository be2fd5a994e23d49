"""NAME keeps the laws of optimisers, and steps as its formula says."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_optimisers():
    laws.check("optimiser", "NAME:NAME")


def test_every_weight_moves_by_the_learning_rate():
    part = NAME()
    x = torch.zeros(3)
    part.step(x, torch.tensor([5.0, -0.01, 0.0]), part.init(x), 0.5)
    assert x.tolist() == [-0.5, 0.5, 0.0]


def test_a_momentum_of_one_is_refused():
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), got 1"):
        NAME(momentum=1)
