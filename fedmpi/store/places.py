"""Where the rows of a run file lie on the disk: a row is written there, without HDF5 opening the file.

The tables of a file that grows are chunked, neither compressed nor checked, and all their room is allocated: HDF5
would write the same bytes to the same places, but looks up some fifty data sets first, which takes it 8 ms a round.
"""

import os
from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import FedError


class Place(NamedTuple):
    """Where one data set lies: row r is row ``r % rows`` of the chunk that begins at byte ``begins[r // rows]``."""

    dtype: np.dtype
    rows: int
    row_bytes: int
    begins: tuple


def place_of(data):
    """The ``Place`` of a data set that is allocated in whole."""
    row_bytes = data.dtype.itemsize * int(np.prod(data.shape[1:]))
    if data.compression or data.shuffle:
        raise FedError(f"{data.name} is packed: a row has no place of its own")
    if data.chunks is None:
        return Place(data.dtype, len(data), row_bytes, (data.id.get_offset(),))
    begins = [0] * -(-len(data) // data.chunks[0])
    for number in range(data.id.get_num_chunks()):
        chunk = data.id.get_chunk_info(number)
        begins[chunk.chunk_offset[0] // data.chunks[0]] = chunk.byte_offset
    if not all(begins):
        raise FedError(f"{data.name} has room that is not allocated")
    return Place(data.dtype, data.chunks[0], row_bytes, tuple(begins))


def put(handle, place, first, values):
    """Write ``values`` to the rows from ``first`` on, through the file descriptor ``handle``."""
    content = np.ascontiguousarray(values, place.dtype).tobytes()
    while content:
        chunk, row = divmod(first, place.rows)
        num = min(place.rows - row, len(content) // place.row_bytes)
        _write(handle, content[: num * place.row_bytes], place.begins[chunk] + row * place.row_bytes)
        content, first = content[num * place.row_bytes:], first + num


def _write(handle, content, begin):
    """All of ``content`` at byte ``begin``: a write may take less than it was given."""
    while content:
        taken = os.pwrite(handle, content, begin)
        content, begin = content[taken:], begin + taken


def get(handle, place):
    """Everything that a place of one chunk holds."""
    return np.frombuffer(os.pread(handle, place.rows * place.row_bytes, place.begins[0]), place.dtype)
