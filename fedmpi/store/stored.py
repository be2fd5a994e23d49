"""Arrays as a checkpoint holds them, piece by piece, so that no second copy is ever in memory.

An array with many zeros, such as the weights of a pruned model, is held as its other values and a
bit for each entry; one of bools as bits. Small arrays are held as they are.
"""

from typing import Callable, NamedTuple

import numpy as np

# Smaller arrays are held as they are.
LARGE_BYTES = 1 << 20
# Bytes of an array that are read at a time.
PIECE_BYTES = 64 << 20
# Values and bits must take less than this share of the array.
WORTH = 0.9
BOOLS = ("bool", "|b1")


class Stored(NamedTuple):
    """A data set of a checkpoint."""

    name: str
    dtype: np.dtype
    shape: tuple
    # () -> its content, flat arrays one after the other.
    pieces: Callable

    @property
    def num_bytes(self):
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


def stored(name, entry, array):
    """``(entry, [Stored])`` of an ``array`` whose ``entry`` of the manifest is known.

    The entry says how the array is held.
    """
    if array.nbytes < LARGE_BYTES:
        return entry, [_plain(name, array)]
    if entry["dtype"] in BOOLS:
        # They come as bytes.
        return entry | {"held": "bits"}, [_bits(name, array.view(bool))]
    num_others = _num_nonzero(array)
    needed_bytes = num_others * array.itemsize + array.size // 8
    if needed_bytes > WORTH * array.nbytes:
        return entry, [_plain(name, array)]

    def others():
        for piece in _pieces(array):
            yield piece[_is_other(piece)]

    values = Stored(f"{name}/values", array.dtype, (num_others,), others)
    held = {"held": "sparse", "size": array.size}
    return entry | held, [values, _bits(f"{name}/bits", array)]


def names_of(name, entry):
    """The names of the data sets that hold the array ``name``."""
    if entry.get("held") == "sparse":
        return [f"{name}/values", f"{name}/bits"]
    return [name]


def restored(entry, arrays):
    """The array of an ``entry``, from its data sets ``arrays``; it may share memory with them."""
    held = entry.get("held")
    first = arrays[0]
    if held is None:
        return first
    if held == "bits":
        num_entries = int(np.prod(entry["shape"], dtype=np.int64))
        return np.unpackbits(first, count=num_entries)
    values, bits = arrays
    whole = np.zeros(entry["size"], values.dtype)
    end = 0
    for piece, marks in zip(_pieces(whole), _slices(bits, whole)):
        is_other = np.unpackbits(marks, count=len(piece)).view(bool)
        begin, end = end, end + np.count_nonzero(is_other)
        piece[is_other] = values[begin:end]
    return whole


def _plain(name, array):
    return Stored(name, array.dtype, array.shape, lambda: _pieces(array))


def _bits(name, array):
    """A bit for each entry of ``array``: whether it is another value than 0."""
    def bits():
        for piece in _pieces(array):
            yield np.packbits(_is_other(piece))

    num_bytes = -(-array.size // 8)
    return Stored(name, np.dtype(np.uint8), (num_bytes,), bits)


def _num_nonzero(array):
    return sum(int(np.count_nonzero(_words(piece))) for piece in _pieces(array))


def _is_other(piece):
    """bool: which entries have other bits than 0."""
    if piece.dtype == bool:
        return piece
    return _words(piece) != 0


def _words(piece):
    """The entries as whole numbers: -0.0 has other bits than 0."""
    if piece.dtype.itemsize > 8:
        # Complex numbers.
        return piece.view(f"u{piece.itemsize // 2}").reshape(-1, 2).any(axis=1)
    return piece.view(f"u{piece.itemsize}")


def _pieces(array):
    """Flat views of an ``array``, of a multiple of 8 entries each but for the last one."""
    flat = array.reshape(-1)
    step = PIECE_BYTES // array.itemsize
    for start in range(0, len(flat), step):
        yield flat[start: start + step]


def _slices(bits, whole):
    """The parts of ``bits`` for each of the pieces of ``whole``."""
    step = PIECE_BYTES // whole.itemsize // 8
    for start in range(0, len(bits), step):
        yield bits[start: start + step]
