"""NAME keeps the laws of contributions, and scores as its formula says."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_contributions():
    laws.check("contribution", "NAME:NAME")


def test_an_update_of_twice_the_length_scores_four_times_as_much():
    cohort = laws.small_cohort(clients=2)
    U = cohort.updates.U
    U[0] = 2 * U[1]
    phi = NAME(power=2).score({}, cohort, None, None).phi
    torch.testing.assert_close(phi[0], 4 * phi[1])


def test_a_power_of_zero_is_refused():
    with pytest.raises(ValueError, match="power must be > 0, got 0"):
        NAME(power=0)
