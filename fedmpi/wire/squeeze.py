"""Lossless coding of bytes by Zstandard, level 1.

Its Huffman coder adapts every 128 KiB, and its matches find repetitions. Codecs choose the bytes;
this module removes their redundancy.
"""

import numpy as np
import zstandard

from fedmpi.core.errors import WireError

# A frame without the 4 bytes naming its format.
BARE = {"format": zstandard.FORMAT_ZSTD1_MAGICLESS}


def squeeze(data):
    """uint8: the contiguous ``data`` (of any dtype) in fewer bytes.

    If there is no gain, its own bytes.
    """
    flat = data.reshape(-1)
    raw = flat.view(np.uint8)
    if not len(raw):
        return raw
    parameters = zstandard.ZstdCompressionParameters.from_level(1, write_content_size=False, **BARE)
    # A compressor of its own each time: they are not for several threads.
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    compressed = compressor.compress(raw)
    frame = np.frombuffer(compressed, np.uint8)
    if len(frame) < len(raw):
        return frame
    return raw


def expand(data, length):
    """uint8 (length,): the bytes given to ``squeeze``.

    WireError if ``data`` does not hold exactly so many bytes; allocates no more than ``length``.
    """
    flat = data.reshape(-1)
    raw = flat.view(np.uint8)
    if len(raw) == length:
        return raw
    try:
        content = _decompressed(raw, length)
    except zstandard.ZstdError as error:
        raise WireError(f"{len(raw)} bytes that do not hold {length}: {error}") from error
    if len(content) != length:
        raise WireError(f"{len(raw)} bytes that hold {len(content)}, expected {length}")
    return np.frombuffer(content, np.uint8)


def _decompressed(frame, length):
    parameters = zstandard.get_frame_parameters(frame, **BARE)
    # The library would allocate the announced size.
    if parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN:
        raise WireError("a frame that announces its size is none of ours")
    decompressor = zstandard.ZstdDecompressor(**BARE)
    return decompressor.decompress(frame, max_output_size=length)
