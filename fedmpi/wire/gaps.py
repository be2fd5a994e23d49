"""Sorted positions as the gaps between them, in few bytes.

A gap is the number of positions left out between two neighbours, or before the first one. Gaps
travel in one of two codes:

    bytes    a byte a gap, for Huffman's code in Zstandard: fast, if no gap is above 255
    Rice     the low bits of all gaps plane by plane, the rest in unary: for long gaps, or few

Rice (1979): numbers of a geometric distribution come within 1 % of their entropy, if the number of
low bits is that of 0.48 mean (Kiely 2004; 0.48 is the logarithm of the golden ratio).
"""

import numpy as np

from fedmpi.wire.squeeze import expand, squeeze

# Bytes are the faster code, and as small, up to a mean distance of BYTES between positions.
BYTES = 32
# Up to FEW positions travel in Rice's code: a table of Huffman's code lengths would show.
FEW = 1 << 12
LOG_GOLDEN_RATIO = 0.4812


def encode(index):
    """``(numbers, array uint8)`` of the sorted positions ``index (k,)``.

    The reader needs ``numbers``: k alone for gaps in bytes; for Rice's code k, the low bits of a
    gap, the squeezed bytes of their planes, and the bytes of the unary part.
    """
    count = len(index)
    mean = 0
    if count:
        mean = int(index[-1]) // count
    if count > FEW and mean < BYTES:
        gaps = _byte_gaps(index)
        if gaps is not None:
            return [count], squeeze(gaps)
    num_low = int(LOG_GOLDEN_RATIO * mean).bit_length()
    positions = index.astype(np.int32)
    before_all = np.int32(-1)
    gaps = np.diff(positions, prepend=before_all)
    gaps -= np.int32(1)
    low, unary = _rice(gaps, num_low)
    squeezed_low = squeeze(low)
    squeezed_unary = squeeze(unary)
    numbers = [count, num_low, len(squeezed_low), len(unary)]
    return numbers, np.concatenate([squeezed_low, squeezed_unary])


def decode(array, n, count, *rice):
    """int64 (count,), sorted: the positions below n coded by ``encode``.

    ValueError or WireError if the bytes do not hold exactly these.
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} positions below {n}")
    if rice:
        gaps = _unrice(array, n, count, *rice)
    else:
        gaps = expand(array, count).astype(np.int64)
    gaps += 1
    # In place: the vector is long.
    index = np.cumsum(gaps, out=gaps)
    index -= 1
    if count and not index[-1] < n:
        raise ValueError(f"position {index[-1]} of {n}")
    return index


def _byte_gaps(index):
    """uint8 (k,): the gaps of ``index (k,)``, k > 0, if all of them fit a byte; else None."""
    # Modulo 256; their sum tells whether one of them was larger.
    positions = index.astype(np.uint8)
    before_all = np.uint8(255)
    gaps = np.diff(positions, prepend=before_all)
    gaps -= np.uint8(1)
    got = int(gaps.sum(dtype=np.int64))
    last = int(index[-1])
    num_left_out = last + 1 - len(index)
    if got != num_left_out:
        return None
    return gaps


def _rice(gaps, num_low):
    """``(low, unary)`` uint8: planes of the last ``num_low`` bits of all gaps, then the rest."""
    # np.concatenate refuses an empty list.
    empty = np.empty(0, np.uint8)
    planes = [empty]
    for bit in range(num_low):
        is_set = gaps & 1 << bit
        plane = np.packbits(is_set.astype(bool))
        planes.append(plane)
    # A gap's unary digits are zeros, and a one at its end.
    lengths = (gaps >> num_low) + 1
    ends = np.cumsum(lengths, dtype=np.int64)
    num_digits = 0
    if len(ends):
        num_digits = int(ends[-1])
    unary = np.zeros(num_digits, bool)
    unary[ends - 1] = True
    return np.concatenate(planes), np.packbits(unary)


def _unrice(array, n, count, num_low, cut, unary_bytes):
    """int64 (count,): the gaps coded by ``_rice``, adding up to less than n.

    ``array`` holds ``cut`` bytes of squeezed planes; the squeezed unary part comes behind them.
    """
    _check_sizes(array, n, count, num_low, cut, unary_bytes)
    low = array[:cut]
    unary = array[cut:]
    gaps = _unary(unary, unary_bytes, count)
    gaps <<= num_low
    plane_bytes = -(-count // 8)
    low_bytes = num_low * plane_bytes
    digits = expand(low, low_bytes)
    planes = digits.reshape(num_low, plane_bytes)
    for bit, plane in enumerate(planes):
        bits = np.unpackbits(plane, count=count)
        gaps |= bits.astype(np.int64) << bit
    return gaps


def _unary(array, num_bytes, count):
    """int64 (count,): the numbers of zeros before each one of the squeezed digits in ``array``."""
    digits = expand(array, num_bytes)
    unary = np.unpackbits(digits)
    ends = np.flatnonzero(unary.view(bool))
    num_ends = len(ends)
    if num_ends != count:
        raise ValueError(f"{count} positions announced, got {num_ends}")
    steps = np.diff(ends, prepend=-1)
    steps -= 1
    return steps


def _check_sizes(array, n, count, num_low, cut, unary_bytes):
    """ValueError for announced sizes beyond those of any message.

    A reader would otherwise allocate whatever a damaged message announces.
    """
    is_sound = 0 <= num_low < 32 and 0 <= cut <= len(array)
    if is_sound:
        # A one for each position, zeros for all of n, and up to 7 bits until the byte is full.
        most_digits = count + (n >> num_low) + 7
        is_sound = 0 <= 8 * unary_bytes <= most_digits
    if not is_sound:
        raise ValueError(f"the last {num_low} bits in {cut} of {len(array)} bytes, "
                         f"the rest in {unary_bytes}")
