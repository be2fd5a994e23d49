"""NAME keeps the laws of strategies, and moves as far as its formula says."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_strategies():
    laws.check("strategy", "NAME:NAME")


def test_half_the_rate_is_half_the_way():
    layout, x = laws.small_layout()
    updates = laws.random_updates(layout, layout.full_mask(), clients=1)
    weights = torch.ones(1, dtype=torch.float64)
    _, merged = NAME(server_lr=0.5).merge({}, x, updates, weights)
    trained = updates.support[: updates.trained]
    half = 0.5 * updates.U[0, : updates.trained]
    assert torch.equal(merged[trained], x[trained] + half)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="server_lr must be > 0, got 0"):
        NAME(server_lr=0)
