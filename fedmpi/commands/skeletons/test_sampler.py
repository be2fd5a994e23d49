"""NAME keeps the laws of samplers, and draws as its formula says."""

import numpy as np
import pytest
import torch

from fedmpi import laws
from fedmpi.core.parts import ClientRecords
from NAME import NAME


def test_it_keeps_the_laws_of_samplers():
    laws.check("sampler", "NAME:NAME")


def test_a_client_without_any_loss_is_not_asked_while_others_have_some():
    losses = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    records = ClientRecords(torch.ones(3, dtype=torch.bool), losses, losses, losses)
    drawn = NAME(power=2.0).draw(np.random.default_rng(0), 2, records)
    assert drawn.tolist() == [0, 2]


def test_a_negative_power_is_refused():
    with pytest.raises(ValueError, match="power must be >= 0, got -1"):
        NAME(power=-1)
