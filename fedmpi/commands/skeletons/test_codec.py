"""NAME keeps the laws of codecs, and rounds as its formula says."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_codecs():
    laws.check("codec", "NAME:NAME")


def test_values_become_multiples_of_a_step():
    codec = NAME(levels=4)
    arrays = codec.encode(torch.tensor([4.0, 1.2, -0.4]))
    assert sum(array.nbytes for array in arrays.values()) == 3 + 4
    assert codec.decode(arrays, 3).tolist() == [4, 1, 0]


def test_more_levels_than_a_byte_holds_are_refused():
    with pytest.raises(ValueError, match=r"levels must be in \[1, 127\], got 128"):
        NAME(levels=128)
