"""NAME keeps the laws of schedules, and falls as its formula says."""

import pytest

from fedmpi import laws
from fedmpi.core.parts import Round
from NAME import NAME


def test_it_keeps_the_laws_of_schedules():
    laws.check("schedule", "NAME:NAME")


def test_half_a_round_is_an_eighth_after_three():
    rate = NAME(decay=0.5).rate
    assert [rate(Round(t, 10), 0, 1) for t in (1, 2, 4)] == [1, 0.5, 0.125]


def test_a_decay_above_one_is_refused():
    with pytest.raises(ValueError, match=r"decay must be in \(0, 1\], got 2"):
        NAME(decay=2)
