"""One message as one buffer: a short JSON header, then raw typed arrays. Nothing is pickled.

    bytes 0-3   magic and schema
    bytes 4-7   length of the header, uint32 little endian
    bytes 8-15  checksum of everything else, uint64 little endian
    header      JSON: {"meta": {...}, "arrays": [[name, dtype, shape], ...]},
                padded with spaces to 16 bytes
    arrays      C order, each padded to 16 bytes

Values that differ between runs of the same seed (seconds, ranks) must travel in arrays of fixed
size, never in ``meta``, so that the number of bytes sent does not depend on the machine.
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
# Checksums are of 8 bytes.
MODULUS = 1 << 64
ENCODER = json.JSONEncoder(separators=(",", ":"))


def _padded(size):
    return -(-size // PAD) * PAD


def pack(meta, arrays, into=None):
    """uint8 (bytes,): the message of ``meta``, JSON, and ``arrays``, a dict of numpy arrays.

    Both are only read. The message is written to ``into``, if that is given: it has its ``size``.
    """
    contiguous = {}
    for name, array in arrays.items():
        contiguous[name] = np.asarray(array, order="C")
    header = _header(meta, contiguous)
    header_bytes = len(header)
    start = FIXED + header_bytes
    num_bytes = start + _content_bytes(contiguous)
    buffer = into
    if buffer is None:
        buffer = np.empty(num_bytes, np.uint8)
    # The checksum counts its own bytes as zeros.
    FIRST.pack_into(buffer, 0, MAGIC, header_bytes, 0)
    buffer[FIXED:start] = np.frombuffer(header, np.uint8)
    for array in contiguous.values():
        start = _write(buffer, start, array)
    total = checksum(buffer)
    FIRST.pack_into(buffer, 0, MAGIC, header_bytes, total)
    return buffer


def pieces(meta, arrays):
    """[uint8 (bytes,)]: the message of ``pack`` in pieces, most of them the arrays' own memory.

    No copy of a large message need be made to send it.
    """
    contiguous = {}
    for name, array in arrays.items():
        contiguous[name] = np.asarray(array, order="C")
    header = _header(meta, contiguous)
    first = np.zeros(FIXED + len(header), np.uint8)
    first[FIXED:] = np.frombuffer(header, np.uint8)
    FIRST.pack_into(first, 0, MAGIC, len(header), 0)
    parts = [first]
    for array in contiguous.values():
        if array.nbytes:
            parts.append(array.reshape(-1).view(np.uint8))
        num_padding = _padded(array.nbytes) - array.nbytes
        if num_padding:
            parts.append(np.zeros(num_padding, np.uint8))
    # Each array begins at a whole word, and what pads the last word of one is 0.
    total = sum(map(checksum, parts)) % MODULUS
    FIRST.pack_into(first, 0, MAGIC, len(header), total)
    return parts


def _write(buffer, start, array):
    """Copies an ``array`` into ``buffer`` from byte ``start`` on; the end of its padding."""
    stop = start + array.nbytes
    padded_stop = start + _padded(array.nbytes)
    # numpy has no view of another dtype of an array without bytes.
    if array.nbytes:
        flat = array.reshape(-1)
        buffer[start:stop] = flat.view(np.uint8)
    buffer[stop:padded_stop] = 0
    return padded_stop


def checksum(buffer):
    """The sum of ``buffer (bytes,) uint8`` as words of 8 bytes, modulo 2^64.

    Every change of a single word is noticed. Swapped words are not, nor changes cancelling each
    other: by chance, once in 2^64.
    """
    whole = len(buffer) & -8
    words = buffer[:whole].view("<u8")
    rest = buffer[whole:].tobytes()
    last = int.from_bytes(rest, "little")
    # The sum of the words wraps by itself, that with the last bytes does not.
    total = words.sum(dtype=np.uint64)
    total = int(total) + last
    return total % MODULUS


def size(meta, arrays):
    """The bytes of ``pack(meta, arrays)``, without packing."""
    header = _header(meta, arrays)
    return FIXED + len(header) + _content_bytes(arrays)


def _content_bytes(arrays):
    return sum(_padded(array.nbytes) for array in arrays.values())


def _header(meta, arrays):
    table = []
    for name, array in arrays.items():
        shape = list(array.shape)
        row = [name, array.dtype.str, shape]
        table.append(row)
    text = ENCODER.encode({"meta": meta, "arrays": table})
    header = text.encode()
    return header.ljust(_padded(len(header)))


def unpack(buffer):
    """``(meta, arrays)``: the arrays are views into ``buffer``.

    WireError on anything but a whole message.
    """
    start = _checked_start(buffer)
    try:
        header = json.loads(buffer[FIXED:start].tobytes())
        meta = header["meta"]
        table = header["arrays"]
        arrays, stop = _views(buffer, table, start)
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise WireError(f"damaged message header: {error}") from error
    num_bytes = len(buffer)
    if stop != num_bytes:
        raise WireError(f"a message of {num_bytes} bytes whose header speaks of {stop}")
    return meta, arrays


def _checked_start(buffer):
    """The first byte behind the header. WireError without this version's magic and checksum."""
    num_bytes = len(buffer)
    magic = buffer[:4].tobytes()
    if num_bytes < FIXED or magic != MAGIC:
        got = f"{num_bytes} bytes that start with {magic!r}"
        raise WireError(f"not a message of this version: {got}")
    _, header_bytes, expected = FIRST.unpack_from(buffer)
    # The sum holds the checksum's own bytes, too.
    total = checksum(buffer)
    got = (total - expected) % MODULUS
    if got != expected:
        sums = f"checksum {got:016x}, sent with {expected:016x}"
        raise WireError(f"damaged on its way: {num_bytes} bytes with {sums}")
    return FIXED + header_bytes


def _views(buffer, table, start):
    """``({name: array}, end)``: the arrays of a header's ``table``, from byte ``start`` on.

    ValueError if one passes the end of the buffer.
    """
    arrays = {}
    for name, dtype_name, shape in table:
        dtype = np.dtype(dtype_name)
        num_bytes = math.prod(shape) * dtype.itemsize
        stop = start + num_bytes
        if num_bytes < 0 or stop > len(buffer):
            raise ValueError(f"{name} of shape {shape} passes the end")
        content = buffer[start:stop]
        values = content.view(dtype)
        arrays[name] = values.reshape(shape)
        start += _padded(num_bytes)
    return arrays, start
