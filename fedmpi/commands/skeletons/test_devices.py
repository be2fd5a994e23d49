"""NAME keeps the laws of devices, and is as slow as it says."""

import pytest

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_devices():
    laws.check("devices", "NAME:NAME")


def test_every_second_client_is_slow():
    speed = NAME(slowdown=5).at(0.0, 4, None).speed
    assert (speed / speed[0]).tolist() == [1, 0.2, 1, 0.2]


def test_a_slowdown_below_one_is_refused():
    with pytest.raises(ValueError, match="slowdown must be >= 1, got 0.5"):
        NAME(slowdown=0.5)
