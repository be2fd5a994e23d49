"""The places of a run file's rows on the disk: rows are written there, without opening the file with HDF5.

The tables of a growing file are chunked, neither compressed nor checksummed, and their room is allocated. HDF5 would
write the same bytes to the same places, but it looks up some fifty data sets first, at 8 ms a round.
"""

import os
from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import FedError


class Place(NamedTuple):
    """The place of one data set: row r is row ``r % rows`` of the chunk beginning at byte ``begins[r // rows]``."""

    dtype: np.dtype
    rows: int
    row_bytes: int
    begins: tuple


def place_of(data):
    """The ``Place`` of a fully allocated data set; FedError if it is packed, or not all allocated."""
    row_shape = data.shape[1:]
    row_bytes = data.dtype.itemsize * int(np.prod(row_shape))
    if data.compression or data.shuffle:
        raise FedError(f"{data.name} is packed: a row has no place of its own")
    # A small table of fixed size, such as /committed, lies in one piece.
    if data.chunks is None:
        begin = data.id.get_offset()
        return Place(data.dtype, len(data), row_bytes, (begin,))
    chunk_rows = data.chunks[0]
    num_chunks = -(-len(data) // chunk_rows)
    begins = [0] * num_chunks
    for number in range(data.id.get_num_chunks()):
        chunk = data.id.get_chunk_info(number)
        begins[chunk.chunk_offset[0] // chunk_rows] = chunk.byte_offset
    if not all(begins):
        raise FedError(f"{data.name} has room that is not allocated")
    return Place(data.dtype, chunk_rows, row_bytes, tuple(begins))


def put(handle, place, first, values):
    """Write ``values`` to the rows from ``first`` on, through the file descriptor ``handle``."""
    content = np.ascontiguousarray(values, place.dtype).tobytes()
    while content:
        chunk, row = divmod(first, place.rows)
        rows_left = len(content) // place.row_bytes
        num_rows = min(place.rows - row, rows_left)
        num_bytes = num_rows * place.row_bytes
        begin = place.begins[chunk] + row * place.row_bytes
        _write(handle, content[:num_bytes], begin)
        content = content[num_bytes:]
        first += num_rows


def _write(handle, content, begin):
    """Write all of ``content`` at byte ``begin``."""
    # pwrite may take less than all at once.
    while content:
        num_written = os.pwrite(handle, content, begin)
        content = content[num_written:]
        begin += num_written


def get(handle, place):
    """All values of a place of one chunk."""
    num_bytes = place.rows * place.row_bytes
    content = os.pread(handle, num_bytes, place.begins[0])
    return np.frombuffer(content, place.dtype)
