"""One message as one buffer: a short JSON header, then raw typed arrays. Nothing is pickled.

    bytes 0-3   magic and schema
    bytes 4-7   length of the header, uint32 little endian
    bytes 8-15  checksum of everything else, uint64 little endian
    header      JSON: {"meta": {...}, "arrays": [[name, dtype, shape], ...]}, padded with spaces to 16 bytes
    arrays      C order, each padded to 16 bytes

What differs between runs of the same seed (seconds, ranks) must travel in arrays of fixed size, never in ``meta``, so
that the number of bytes sent does not depend on the machine.
"""

import json
import math
import struct

import numpy as np

from fedmpi.core.errors import WireError

MAGIC = b"fmp2"
PAD = 16
FIRST = struct.Struct("<4sIQ")
FIXED = FIRST.size        # bytes before the header
ENCODER = json.JSONEncoder(separators=(",", ":"))


def _padded(size):
    return -(-size // PAD) * PAD


def pack(meta, arrays):
    """uint8 (bytes,): the message. ``meta`` is JSON, ``arrays`` a dict of numpy arrays; both are only read."""
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = _header(meta, arrays)
    start = FIXED + len(header)
    buffer = np.empty(start + sum(_padded(array.nbytes) for array in arrays.values()), np.uint8)
    FIRST.pack_into(buffer, 0, MAGIC, len(header), 0)
    buffer[FIXED:start] = np.frombuffer(header, np.uint8)
    for array in arrays.values():
        stop = start + array.nbytes
        if array.nbytes:
            buffer[start:stop] = array.reshape(-1).view(np.uint8)
        buffer[stop: start + _padded(array.nbytes)] = 0
        start += _padded(array.nbytes)
    FIRST.pack_into(buffer, 0, MAGIC, len(header), checksum(buffer))
    return buffer


def checksum(buffer):
    """The sum of ``buffer (bytes,) uint8`` as words of 8 bytes, modulo 2^64: whatever happens to one word is noticed.
    Words that change places are not, nor changes that make up for each other, which chance does once in 2^64."""
    whole = len(buffer) & -8
    words = buffer[:whole].view("<u8")
    last = int.from_bytes(buffer[whole:].tobytes(), "little")
    return (int(words.sum(dtype=np.uint64)) + last) % (1 << 64)


def size(meta, arrays):
    """The bytes that ``pack`` would take, without packing."""
    return FIXED + len(_header(meta, arrays)) + sum(_padded(array.nbytes) for array in arrays.values())


def _header(meta, arrays):
    table = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    header = ENCODER.encode({"meta": meta, "arrays": table}).encode()
    return header.ljust(_padded(len(header)))


def unpack(buffer):
    """``(meta, arrays)``: the arrays are views into ``buffer``. Raises WireError on anything but a whole message."""
    if len(buffer) < FIXED or buffer[:4].tobytes() != MAGIC:
        raise WireError(f"not a message of this version: {len(buffer)} bytes that start with {buffer[:4].tobytes()!r}")
    _, length, expected = FIRST.unpack_from(buffer)
    if (got := (checksum(buffer) - expected) % (1 << 64)) != expected:
        raise WireError(f"damaged on its way: {len(buffer)} bytes with checksum {got:016x}, sent with {expected:016x}")
    start = FIXED + length
    try:
        header = json.loads(buffer[FIXED:start].tobytes())
        meta = header["meta"]
        arrays = {}
        for name, dtype, shape in header["arrays"]:
            dtype = np.dtype(dtype)
            size = math.prod(shape) * dtype.itemsize
            if size < 0 or start + size > len(buffer):
                raise ValueError(f"{name} of shape {shape} passes the end")
            arrays[name] = buffer[start: start + size].view(dtype).reshape(shape)
            start += _padded(size)
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise WireError(f"damaged message header: {error}") from error
    if start != len(buffer):
        raise WireError(f"a message of {len(buffer)} bytes whose header speaks of {start}")
    return meta, arrays
