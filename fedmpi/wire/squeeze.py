"""Lossless coding of bytes: Zstandard, level 1, whose Huffman coder adapts every 128 KiB and whose matches find what
repeats. Codecs choose the bytes; this takes out what is redundant in them.
"""

import numpy as np
import zstandard

from fedmpi.core.errors import WireError

BARE = {"format": zstandard.FORMAT_ZSTD1_MAGICLESS}      # a frame without the 4 bytes that say what it is


def squeeze(data):
    """uint8: the contiguous ``data`` (of any dtype) in fewer bytes; as it is where that gains nothing."""
    data = data.reshape(-1).view(np.uint8)
    if not len(data):
        return data
    how = zstandard.ZstdCompressionParameters.from_level(1, write_content_size=False, **BARE)
    frame = np.frombuffer(zstandard.ZstdCompressor(compression_params=how).compress(data), np.uint8)
    return frame if len(frame) < len(data) else data


def expand(data, length):
    """uint8 (length,): what ``squeeze`` was given. Raises WireError where ``data`` does not hold that many bytes; no
    more memory than that is asked for."""
    data = data.reshape(-1).view(np.uint8)
    if len(data) == length:
        return data
    try:
        if zstandard.get_frame_parameters(data, **BARE).content_size != zstandard.CONTENTSIZE_UNKNOWN:
            raise WireError("a frame that announces its size is none of ours")    # the library would allocate that
        found = np.frombuffer(zstandard.ZstdDecompressor(**BARE).decompress(data, max_output_size=length), np.uint8)
    except zstandard.ZstdError as error:
        raise WireError(f"{len(data)} bytes that do not hold {length}: {error}") from error
    if len(found) != length:
        raise WireError(f"{len(data)} bytes that hold {len(found)}, expected {length}")
    return found
