"""NAME keeps the laws of weightings, and weighs as its formula says."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_weightings():
    laws.check("weighting", "NAME:NAME")


def test_a_client_of_no_score_counts_half_as_much_as_the_best():
    part = NAME(floor=1e-9)
    cohort = laws.small_cohort(clients=2)
    phi = torch.tensor([1000.0, 0.0], dtype=torch.float64)
    _, weights = part.weigh(part.init(torch.ones(2, dtype=torch.float64)), phi, cohort)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))


def test_a_floor_of_zero_is_refused():
    with pytest.raises(ValueError, match="floor must be > 0, got 0"):
        NAME(floor=0)
