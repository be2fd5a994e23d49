"""Supports: single positions and whole stretches, with the bits of plain positions."""

import zlib

import numpy as np
import pytest
import torch

from fedmpi.core.layout import arranged
from fedmpi.core.support import (Support, below, copied, digest, gathered, leading, same, scattered)

# Tensors whose sizes leave padding, and some that do not.
LAYOUT = arranged([("a", (3, 7)), ("b", (4, 4)), ("c", (50,))], [("d", (16,)), ("e", (5,))], [("f", (9,))])


def masks():
    gen = torch.Generator().manual_seed(0)
    full = LAYOUT.full_mask()
    yield full
    yield torch.zeros_like(full)
    for share in (0.1, 0.9):
        yield full & (torch.rand(LAYOUT.Q, generator=gen) < share)


@pytest.mark.parametrize("personal", [(), ("b", "e")])
@pytest.mark.parametrize("mask", list(masks()), ids=["full", "empty", "sparse", "most"])
def test_stretches_are_the_positions_of_the_mask(mask, personal):
    layout = LAYOUT.with_personal(lambda _: personal)
    travels = torch.cat([mask, torch.ones(layout.P - layout.Q, dtype=torch.bool)]) & layout.shared
    expected = torch.nonzero(travels).flatten().int()
    support = layout.compact(mask)
    assert torch.equal(support.positions, expected) and support.positions.dtype == torch.int32
    assert len(support) == len(expected)
    assert support.digest == digest(expected) == zlib.crc32(expected.numpy())
    assert leading(support) == leading(expected)
    x = torch.randn(layout.P)
    values = gathered(x, support)
    assert torch.equal(values, x[expected.long()])
    alone = torch.where(travels, x, 0)
    for places in (support, expected):
        assert torch.equal(scattered(values, places, torch.zeros(layout.P)), alone)
        assert torch.equal(copied(x, places, torch.zeros(layout.P)), alone)
    for bound in range(0, layout.P + 20, 3):
        assert below(support, bound) == below(expected, bound)
    for first in range(0, len(expected) + 1, 5):
        assert torch.equal(support.between(first, first + 7), expected[first: first + 7])
    assert same(support, expected) and same(expected, support) and same(support, layout.compact(mask.clone()))
    assert not same(support, expected[1:])


def test_a_model_without_pruned_weights_takes_no_memory_by_the_weight():
    support = LAYOUT.compact(LAYOUT.full_mask())
    assert not len(support.body)
    # The tensors of 16 and more entries without padding behind them have joined.
    assert support.spans == ((0, 21), (32, 98), (112, 133), (144, 153))


def test_the_digest_of_a_long_stretch_is_that_of_its_positions():
    n = (1 << 21) + 5
    body = torch.tensor([0, 2], dtype=torch.int32)
    support = Support(body, ((7, 7 + n),))
    expected = np.concatenate([[0, 2], np.arange(7, 7 + n)]).astype(np.int32)
    assert support.digest == zlib.crc32(expected)


def test_positions_beyond_int32_are_refused_before_memory_is_taken():
    half = ("half", (1 << 15, 1 << 15))
    limit = "at most 2,147,483,647 values, as their positions are int32, got 2,147,483,648"
    with pytest.raises(ValueError, match=limit):
        arranged([half, ("other", half[1])], [], [])
    layout = arranged([half, ("other", ((1 << 15) - 1, 1 << 15))], [("bias", (1 << 14,))], [])
    assert layout.P == (1 << 31) - (1 << 14)


def test_positions_just_below_the_limit_are_exact():
    last = (1 << 31) - 1
    support = Support(torch.tensor([3, 1 << 30], dtype=torch.int32), ((last - 5, last),))
    expected = torch.tensor([3, 1 << 30, *range(last - 5, last)], dtype=torch.int32)
    assert torch.equal(support.positions, expected) and support.digest == digest(expected)
    assert below(support, last - 2) == 5 and below(support, last) == 7
