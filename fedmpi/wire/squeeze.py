"""Lossless coding of bytes by Zstandard, level 1: its Huffman coder adapts every 128 KiB, its matches find repetitions.

Codecs choose the bytes; this module removes their redundancy.
"""

import numpy as np
import zstandard

from fedmpi.core.errors import WireError

# A frame without the 4 bytes naming its format.
BARE = {"format": zstandard.FORMAT_ZSTD1_MAGICLESS}


def squeeze(data):
    """uint8: the contiguous ``data`` (of any dtype) in fewer bytes, or its own bytes if there is no gain."""
    data = data.reshape(-1).view(np.uint8)
    if not len(data):
        return data
    parameters = zstandard.ZstdCompressionParameters.from_level(1, write_content_size=False, **BARE)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    frame = np.frombuffer(compressor.compress(data), np.uint8)
    if len(frame) < len(data):
        return frame
    return data


def expand(data, length):
    """uint8 (length,): the bytes given to ``squeeze``. WireError if ``data`` does not hold exactly so many bytes;
    allocates no more than ``length``."""
    data = data.reshape(-1).view(np.uint8)
    if len(data) == length:
        return data
    try:
        content_size = zstandard.get_frame_parameters(data, **BARE).content_size
        # The library would allocate the announced size.
        if content_size != zstandard.CONTENTSIZE_UNKNOWN:
            raise WireError("a frame that announces its size is none of ours")
        content = zstandard.ZstdDecompressor(**BARE).decompress(data, max_output_size=length)
    except zstandard.ZstdError as error:
        raise WireError(f"{len(data)} bytes that do not hold {length}: {error}") from error
    if len(content) != length:
        raise WireError(f"{len(data)} bytes that hold {len(content)}, expected {length}")
    return np.frombuffer(content, np.uint8)
