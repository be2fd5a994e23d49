"""One message as one buffer: a short JSON header, then raw typed arrays. Nothing is pickled.

    bytes 0-3   magic and schema
    bytes 4-7   length of the header, uint32 little endian
    bytes 8-15  checksum of everything else, uint64 little endian
    header      JSON: {"meta": {...}, "arrays": [[name, dtype, shape], ...]}, padded with spaces to 16 bytes
    arrays      C order, each padded to 16 bytes

Values that differ between runs of the same seed (seconds, ranks) must travel in arrays of fixed size, never in
``meta``, so that the number of bytes sent does not depend on the machine.
"""

import json
import math
import struct

import numpy as np

from fedmpi.core.errors import WireError

MAGIC = b"fmp2"
PAD = 16
FIRST = struct.Struct("<4sIQ")
# Bytes before the header.
FIXED = FIRST.size
ENCODER = json.JSONEncoder(separators=(",", ":"))


def _padded(size):
    return -(-size // PAD) * PAD


def pack(meta, arrays):
    """uint8 (bytes,): the message. ``meta`` is JSON, ``arrays`` a dict of numpy arrays; both are only read."""
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = _header(meta, arrays)
    start = FIXED + len(header)
    buffer = np.empty(start + _content_bytes(arrays), np.uint8)
    # The checksum counts its own bytes as zeros.
    FIRST.pack_into(buffer, 0, MAGIC, len(header), 0)
    buffer[FIXED:start] = np.frombuffer(header, np.uint8)
    for array in arrays.values():
        stop = start + array.nbytes
        padded_stop = start + _padded(array.nbytes)
        if array.nbytes:
            buffer[start:stop] = array.reshape(-1).view(np.uint8)
        buffer[stop:padded_stop] = 0
        start = padded_stop
    FIRST.pack_into(buffer, 0, MAGIC, len(header), checksum(buffer))
    return buffer


def checksum(buffer):
    """The sum of ``buffer (bytes,) uint8`` as words of 8 bytes, modulo 2^64.

    Every change of a single word is noticed. Swapped words are not, nor changes cancelling each other: by chance, once
    in 2^64."""
    whole = len(buffer) & -8
    words = buffer[:whole].view("<u8")
    rest = buffer[whole:].tobytes()
    last = int.from_bytes(rest, "little")
    total = int(words.sum(dtype=np.uint64)) + last
    return total % (1 << 64)


def size(meta, arrays):
    """The bytes of ``pack(meta, arrays)``, without packing."""
    header = _header(meta, arrays)
    return FIXED + len(header) + _content_bytes(arrays)


def _content_bytes(arrays):
    return sum(_padded(array.nbytes) for array in arrays.values())


def _header(meta, arrays):
    table = []
    for name, array in arrays.items():
        table.append([name, array.dtype.str, list(array.shape)])
    header = ENCODER.encode({"meta": meta, "arrays": table}).encode()
    return header.ljust(_padded(len(header)))


def unpack(buffer):
    """``(meta, arrays)``: the arrays are views into ``buffer``. WireError on anything but a whole message."""
    magic = buffer[:4].tobytes()
    if len(buffer) < FIXED or magic != MAGIC:
        raise WireError(f"not a message of this version: {len(buffer)} bytes that start with {magic!r}")
    _, length, expected = FIRST.unpack_from(buffer)
    # The sum holds the checksum's own bytes, too.
    got = (checksum(buffer) - expected) % (1 << 64)
    if got != expected:
        raise WireError(f"damaged on its way: {len(buffer)} bytes with checksum {got:016x}, sent with {expected:016x}")
    start = FIXED + length
    try:
        header = json.loads(buffer[FIXED:start].tobytes())
        meta = header["meta"]
        arrays, stop = _views(buffer, header["arrays"], start)
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise WireError(f"damaged message header: {error}") from error
    if stop != len(buffer):
        raise WireError(f"a message of {len(buffer)} bytes whose header speaks of {stop}")
    return meta, arrays


def _views(buffer, table, start):
    """``({name: array}, end)``: the arrays of a header's ``table``, from byte ``start`` on. ValueError if one passes
    the end of the buffer."""
    arrays = {}
    for name, dtype, shape in table:
        dtype = np.dtype(dtype)
        num_bytes = math.prod(shape) * dtype.itemsize
        stop = start + num_bytes
        if num_bytes < 0 or stop > len(buffer):
            raise ValueError(f"{name} of shape {shape} passes the end")
        content = buffer[start:stop]
        arrays[name] = content.view(dtype).reshape(shape)
        start += _padded(num_bytes)
    return arrays, start
