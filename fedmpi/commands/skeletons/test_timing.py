"""NAME keeps the laws of timing, and discounts as its formula says."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_timing():
    laws.check("timing", "NAME:NAME")


def test_an_answer_that_is_three_merges_late_counts_an_eighth():
    staleness = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    assert NAME(rate=0.5).discount(staleness).tolist() == [1, 0.5, 0.125]


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"rate must be in \(0, 1\], got 0"):
        NAME(rate=0)
