"""NAME keeps the laws of adapters, and trains what it should."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_adapters():
    laws.check("adapters", "NAME:NAME")


def test_biases_and_the_last_matrix_are_trained():
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4))
    network = NAME().attach(network, torch.Generator(), False)
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trained == ["0.bias", "1.weight", "1.bias"]


def test_no_matrix_at_all_is_refused():
    with pytest.raises(ValueError, match="last must be >= 1"):
        NAME(last=0)
