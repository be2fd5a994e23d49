"""Gaps between sorted positions: exact bytes of both codes, and damaged sizes."""

import numpy as np
import pytest

from fedmpi.wire import gaps


def test_few_positions_travel_in_rices_code():
    numbers, array = gaps.encode(np.array([1, 4, 9], np.int32))
    # Gaps 1, 2 and 4: low bits 1, 0, 0; the rest 0, 1, 2 in unary: 1, 01, 001.
    assert numbers == [3, 1, 1, 1] and array.tolist() == [0b1000_0000, 0b1010_0100]
    assert gaps.decode(array, 10, *numbers).tolist() == [1, 4, 9]


def test_many_near_positions_travel_as_bytes():
    index = np.arange(0, 3 * (gaps.FEW + 1), 3, dtype=np.int32)
    numbers, array = gaps.encode(index)
    assert numbers == [len(index)] and array.nbytes < 100
    assert np.array_equal(gaps.decode(array, int(index[-1]) + 1, *numbers), index)


def test_a_gap_above_a_byte_among_many_takes_rices_code():
    index = np.arange(0, 3 * (gaps.FEW + 1), 3, dtype=np.int32)
    index[5:] += 256
    numbers, array = gaps.encode(index)
    assert len(numbers) == 4
    assert np.array_equal(gaps.decode(array, int(index[-1]) + 1, *numbers), index)


def test_no_position_takes_no_byte():
    numbers, array = gaps.encode(np.zeros(0, np.int32))
    assert array.nbytes == 0 and gaps.decode(array, 5, *numbers).tolist() == []


@pytest.mark.parametrize("numbers", [[11, 1, 1, 1], [3, 32, 1, 1], [3, 1, 3, 1], [3, 1, 1, 9], [3, 1, -1, 1]])
def test_sizes_beyond_any_message_are_refused_before_memory_is_taken(numbers):
    with pytest.raises(ValueError):
        gaps.decode(np.array([0b1000_0000, 0b1010_0100], np.uint8), 10, *numbers)


def test_a_position_beyond_the_end_is_refused():
    with pytest.raises(ValueError, match="position 9 of 9"):
        gaps.decode(np.array([0b1000_0000, 0b1010_0100], np.uint8), 9, 3, 1, 1, 1)
