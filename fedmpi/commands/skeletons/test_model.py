"""NAME keeps the laws of networks, and has the parameters that it should."""

import pytest

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_models():
    laws.check("model", "NAME:NAME")


def test_parameters_are_counted_by_hand():
    network = NAME((1, 2, 2), 3, hidden=5)
    assert sum(each.numel() for each in network.parameters()) == (4 * 5 + 5) + (5 * 3 + 3)


def test_a_layer_without_units_is_refused():
    with pytest.raises(ValueError, match="hidden must be >= 1, got 0"):
        NAME((4,), 3, hidden=0)
