"""Bytes and speed of masks and values on the wire, on one core: against the bound of information
and other libraries.

A row is measured in turns in one process, the best of several: a mask from bool to bytes and back
to bool, values from float32 to a message's arrays and back. Speeds count all weights, zeros
included.
"""

import importlib
import math
import time

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.compute.staging import staging
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.layout import ALIGN, Layout, Slot
from fedmpi.core.support import digest, index_of
from fedmpi.plugins.spec import make
from fedmpi.wire import frame, positions

SPARSITIES = (.5, .6, .7, .8, .9, .95, .98, .99)
CODECS = (
    "float32",
    "float16",
    "float16:entropy=true",
    "bfloat16",
    "bfloat16:entropy=true",
    "int8",
    "int8:entropy=true",
    "sign",
    "topk",
)
# Weights of a filter of 64 channels, of a kernel, and of a block.
FILTER, KERNEL, BLOCK = 576, 9, 16


def measure(weights, repeats, say):
    """Print the tables; returns the exit code."""
    torch.set_num_threads(1)
    keep_freed_memory()
    gen = np.random.default_rng(0)
    _masks(weights, repeats, gen, say)
    _libraries(weights, repeats, gen, say)
    _values(weights // 10, repeats, say)
    _path(weights, repeats, say)
    return 0


def bound_bytes(n, k):
    """log2 of the number of masks with k of n weights kept, in bytes."""
    # lgamma(n + 1) is the logarithm of n!.
    of_n = math.lgamma(n + 1)
    of_kept = math.lgamma(k + 1)
    of_pruned = math.lgamma(n - k + 1)
    nats = of_n - of_kept - of_pruned
    bits = nats / math.log(2)
    return bits / 8


def best(repeats, *functions):
    """The least seconds of each of the ``functions``, called in turns, after a warm-up."""
    seconds = [[] for _ in functions]
    for _ in range(repeats + 1):
        for taken, function in zip(seconds, functions):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [min(taken[1:]) for taken in seconds]


# ------------------------------------------------------------- masks


def _masks(n, repeats, gen, say):
    """Print the rows of masks of ``n`` weights: random ones, of blocks, and of changes."""
    say(f"masks of {n:,} weights: bytes against the bound log2 C(n, k) for random ones; "
        "million weights a second")
    say(f"{'':34}{'bytes':>11}{'/ bound':>9}{'encode':>9}{'decode':>9}")
    for sparsity in SPARSITIES:
        mask = gen.random(n) >= sparsity
        say(_mask_row(f"random, sparsity {sparsity}", repeats, mask))
    for sparsity in (.5, .9):
        for title, mask in _structured(gen, n, sparsity):
            say(_mask_row(title, repeats, mask))
    for sparsity in (.5, .9):
        known = gen.random(n) >= sparsity
        for share in (.001, .01, .1):
            flips = gen.random(n) < share
            title = f"sparsity {sparsity}, {share:.1%} flipped"
            say(_mask_row(title, repeats, known ^ flips, known))


def _structured(gen, n, sparsity):
    """Yield ``(title, mask)`` of masks with blocks pruned as a whole."""
    sizes = {
        f"filters of {FILTER} pruned": FILTER,
        f"kernels of {KERNEL} pruned": KERNEL,
        f"blocks of {BLOCK} pruned": BLOCK,
    }
    for name, size in sizes.items():
        mask = _blocks(gen, n, size, sparsity)
        yield f"{name}, sparsity {sparsity}", mask
    half = _blocks(gen, n, FILTER, .5)
    is_kept = gen.random(n) >= sparsity
    mask = half & is_kept
    in_all = 1 - (1 - sparsity) / 2
    yield f"half the filters, then to {in_all:g}", mask


def _blocks(gen, n, size, sparsity):
    """bool (n,): blocks of ``size`` weights, each kept or pruned as a whole."""
    # The last block may be cut short.
    num_blocks = n // size + 1
    is_kept = gen.random(num_blocks) >= sparsity
    weights = np.repeat(is_kept, size)
    return weights[:n]


def _mask_row(name, repeats, mask, known=None):
    n = len(mask)
    # Of the first call come the bytes, of the others the speed.
    meta, array = positions.encode(mask, known)

    def encode():
        return positions.encode(mask, known)

    def decode():
        return positions.decode(meta, array, n, known)

    encode_s, decode_s = best(repeats, encode, decode)
    # Of a known mask the changes are coded.
    coded = mask if known is None else mask ^ known
    bound = bound_bytes(n, int(coded.sum()))
    share = array.nbytes / bound
    speeds = _speeds(n, encode_s, decode_s)
    return f"{name:34}{array.nbytes:11,}{share:9.3f}{speeds}"


def _speeds(number, encode_s, decode_s):
    """Two cells: millions a second there and back."""
    millions = number / 1e6
    there = millions / encode_s
    back = millions / decode_s
    return f"{there:9.0f}{back:9.0f}"


def _libraries(n, repeats, gen, say):
    """Print other libraries' codes of the same gaps and bitmaps, without libraries not
    installed."""
    say("the bytes that are coded, by others: of the bound, and MB/s of those bytes there and back "
        f"({n:,} weights)")
    for sparsity, name, coded in ((.7, "bitmap", _bitmap), (.9, "gaps", _gaps)):
        mask = gen.random(n) >= sparsity
        data = coded(mask)
        num_kept = int(mask.sum())
        bound = bound_bytes(n, num_kept)
        for library, coder in _coders(len(data)).items():
            title = f"{name}, sparsity {sparsity}, {library}"
            say(_library_row(title, repeats, data, coder, bound))


def _bitmap(mask):
    return np.packbits(mask).tobytes()


def _gaps(mask):
    kept = np.flatnonzero(mask)
    gaps = np.diff(kept, prepend=-1) - 1
    # At sparsity 0.9 gaps above 255 are too rare to matter here.
    return gaps.astype(np.uint8).tobytes()


def _library_row(name, repeats, data, coder, bound):
    encode, decode = coder
    # A coder with another idea of the format would seem fast.
    coded = encode(data)
    assert decode(coded) == data

    def encode_data():
        return encode(data)

    def decode_data():
        return decode(coded)

    encode_s, decode_s = best(repeats, encode_data, decode_data)
    share = len(coded) / bound
    speeds = _speeds(len(data), encode_s, decode_s)
    return f"{name:45}{share:9.3f}{speeds}"


# ------------------------------------------------------------- coders of other libraries


def _coders(size):
    """``{name: (encode, decode)}`` of ``size`` bytes, from the installed libraries."""
    offers = {
        "zstandard": _zstandard,
        "zlib": _zlib,
        "isal.isal_zlib": _isal,
        "zlib_ng.zlib_ng": _zlib_ng,
        "deflate": _libdeflate,
        "lz4.frame": _lz4,
    }
    coders = {}
    for name, offer in offers.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        coders |= offer(module, size)
    return coders


def _deflated(module, strategy, size):
    """``(encode, decode)`` of deflate without a header, by a module like Python's zlib."""
    def encode(data):
        # Level 1, a window of 32 KB without a header (-15), and the most memory (9).
        coder = module.compressobj(1, module.DEFLATED, -15, 9, strategy)
        return coder.compress(data) + coder.flush()

    def decode(coded):
        return module.decompress(coded, -15, size)

    return encode, decode


def _zstandard(module, size):
    coders = {}
    for level in (1, 3):
        encode = module.ZstdCompressor(level).compress
        decode = module.ZstdDecompressor().decompress
        coders[f"zstandard {level}"] = encode, decode
    return coders


def _zlib(module, size):
    return {
        "zlib Huffman only": _deflated(module, module.Z_HUFFMAN_ONLY, size),
        "zlib 1": _deflated(module, 0, size),
    }


def _isal(module, size):
    return {"isal 1": _deflated(module, 0, size)}


def _zlib_ng(module, size):
    return {"zlib-ng Huffman only": _deflated(module, module.Z_HUFFMAN_ONLY, size)}


def _libdeflate(module, size):
    def encode(data):
        return bytes(module.deflate_compress(data, 1))

    def decode(coded):
        return bytes(module.deflate_decompress(coded, size))

    return {"libdeflate 1": (encode, decode)}


def _lz4(module, size):
    return {"lz4": (module.compress, module.decompress)}


# ------------------------------------------------------------- values, and a model's way


def _values(K, repeats, say):
    say(f"{K:,} values of a normal distribution: bytes a value, million values a second")
    say(f"{'':34}{'bytes':>11}{'encode':>9}{'decode':>9}")
    gen = torch.Generator().manual_seed(0)
    # As large as updates are.
    values = torch.randn(K, generator=gen) * .01
    for spec in CODECS:
        say(_codec_row(spec, values, repeats))


def _codec_row(spec, values, repeats):
    K = len(values)
    codec = make(catalog.CODECS, spec)
    arrays = codec.encode(values)

    def encode():
        return codec.encode(values)

    def decode():
        return codec.decode(arrays, K)

    encode_s, decode_s = best(repeats, encode, decode)
    num_bytes = sum(array.nbytes for array in arrays.values())
    value_bytes = num_bytes / K
    speeds = _speeds(K, encode_s, decode_s)
    return f"{spec:34}{value_bytes:11.3f}{speeds}"


def _path(n, repeats, say):
    """Print the steps of a model from the server's vector to a worker's, sparse and dense, and a
    bare copy."""
    layout = _layout(n)
    P = layout.P
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(P, generator=gen)
    # Room for a dense message: 4 bytes a value, and its head.
    copy = np.empty(5 * P, np.uint8)
    stage = staging(P, torch.device("cpu"))
    full = layout.full_mask()
    numbers = torch.rand(P, generator=gen)
    is_kept = numbers >= .9
    # Copies, as the layout keeps its last support.
    sparse_support = layout.support(full & is_kept).clone()
    dense_support = layout.support(full).clone()
    sparse = _steps(x, sparse_support, stage, copy, repeats)
    dense = _steps(x, dense_support, stage, copy, repeats)
    say(f"a model of {n:,} weights, its mask known: milliseconds"
        f"{'sparsity 0.9':>26}{'dense':>9}{'ratio':>9}")
    for name, sparse_s in sparse.items():
        say(_step_row(name, sparse_s, dense[name]))


def _step_row(name, sparse_s, dense_s):
    sparse_ms = 1e3 * sparse_s
    dense_ms = 1e3 * dense_s
    ratio = dense_ms / sparse_ms
    return f"{name:60}{sparse_ms:14.2f}{dense_ms:9.2f}{ratio:9.1f}"


def _layout(n):
    """A ``Layout`` of one tensor of ``n`` weights."""
    # Vectors end at multiples of ALIGN.
    num_blocks = -(-n // ALIGN)
    P = num_blocks * ALIGN
    weight = Slot("weight", (n,), 0, n)
    return Layout((weight,), (), (), P, P, P)


def _steps(x, support, stage, copy, repeats):
    """``{step: seconds}`` of ``x`` on its ``support``; ``copy`` is memory for a copy of the
    message."""
    header = {"kind": "round"}
    values = x.index_select(0, support)

    def pack():
        return frame.pack(header, {"values": values.numpy()})

    message = pack()
    _, arrays = frame.unpack(message)
    arrived = torch.from_numpy(arrays["values"])
    base = stage.up(arrived, support)
    kept = positions.mask_of(support.numpy(), len(x))
    steps = {
        "gather the values": lambda: x.index_select(0, support),
        "pack the message, with its checksum": pack,
        "unpack it, with its checksum": lambda: frame.unpack(message),
        "scatter the values": lambda: stage.up(arrived, support, base),
        "of these: the checksum, each way": lambda: frame.checksum(message),
        "a bare copy of the message": lambda: np.copyto(copy[: len(message)], message),
        "an update: gather the difference": lambda: stage.down(stage.difference(x, base, support)),
        "where the mask is new: its support": lambda: index_of(kept),
        "where the mask is new: its digest": lambda: digest(support),
    }
    seconds = best(repeats, *steps.values())
    in_all = sum(seconds[:4])
    return {"encode and decode, the first four": in_all} | dict(zip(steps, seconds))
