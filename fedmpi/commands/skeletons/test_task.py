"""NAME keeps the laws of tasks, and its loss is that of its formula."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_tasks():
    laws.check("task", "NAME:NAME")


def test_no_loss_beyond_the_margin():
    outputs = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    targets = torch.tensor([0, 1])
    losses = NAME(margin=2.0).loss(outputs, targets, reduction="none")
    # Of two classes, one of which is the target: max(0, 2 - 3) / 2, and max(0, 2 - 0) / 2.
    assert losses.tolist() == [0, 1]


def test_a_margin_of_zero_is_refused():
    with pytest.raises(ValueError, match="margin must be > 0, got 0"):
        NAME(margin=0)
