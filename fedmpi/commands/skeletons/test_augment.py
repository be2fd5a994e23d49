"""NAME keeps the laws of augmentations, and covers what was drawn."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_augmentations():
    laws.check("augment", "NAME:NAME")


def test_a_square_lies_where_it_was_drawn():
    images = torch.ones(1, 1, 3, 3)
    covered = NAME(size=2).apply(images, torch.tensor([[1, -1]]))
    assert covered[0, 0].tolist() == [[1, 1, 1], [0, 1, 1], [0, 1, 1]]


def test_a_square_without_pixels_is_refused():
    with pytest.raises(ValueError, match="size must be >= 1, got 0"):
        NAME(size=0)
