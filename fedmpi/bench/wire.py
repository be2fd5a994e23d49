"""Bytes and speed of masks and values on the wire, on one core: against the bound of information and other libraries.

A row is measured in turns in one process, the best of several: a mask from bool to bytes and back to bool, values from
float32 to a message's arrays and back. Speeds count all weights, zeros included.
"""

import importlib
import math
import time

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.client.received import digest
from fedmpi.compute.staging import staging
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.layout import Layout, Slot
from fedmpi.core.support import index_of
from fedmpi.plugins.spec import make
from fedmpi.wire import frame, positions

SPARSITIES = (.5, .6, .7, .8, .9, .95, .98, .99)
CODECS = ("float32", "float16", "float16:entropy=true", "bfloat16", "bfloat16:entropy=true", "int8",
          "int8:entropy=true", "sign", "topk")


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
    return (of_n - of_kept - of_pruned) / math.log(2) / 8


def best(repeats, *functions):
    """The least seconds of each of the ``functions``, called in turns, after a warm-up."""
    seconds = [[] for _ in functions]
    for _ in range(repeats + 1):
        for taken, function in zip(seconds, functions):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [min(taken[1:]) for taken in seconds]


def _masks(n, repeats, gen, say):
    say(f"masks of {n:,} weights: bytes against the bound log2 C(n, k) for random ones; million weights a second")
    say(f"{'':34}{'bytes':>11}{'/ bound':>9}{'encode':>9}{'decode':>9}")
    for sparsity in SPARSITIES:
        say(_mask_row(f"random, sparsity {sparsity}", repeats, gen.random(n) >= sparsity))
    for sparsity in (.5, .9):
        for name, size in (("filters of 576 pruned", 576), ("kernels of 9 pruned", 9), ("blocks of 16 pruned", 16)):
            mask = _blocks(gen, n, size, sparsity)
            say(_mask_row(f"{name}, sparsity {sparsity}", repeats, mask))
        half = _blocks(gen, n, 576, .5)
        mask = half & (gen.random(n) >= sparsity)
        say(_mask_row(f"half the filters, then to {1 - (1 - sparsity) / 2:g}", repeats, mask))
    for sparsity in (.5, .9):
        known = gen.random(n) >= sparsity
        for share in (.001, .01, .1):
            flips = gen.random(n) < share
            say(_mask_row(f"sparsity {sparsity}, {share:.1%} flipped", repeats, known ^ flips, known))


def _blocks(gen, n, size, sparsity):
    """bool (n,): blocks of ``size`` weights, each kept or pruned as a whole."""
    kept = gen.random(n // size + 1) >= sparsity
    return np.repeat(kept, size)[:n]


def _mask_row(name, repeats, mask, known=None):
    n = len(mask)
    meta, array = positions.encode(mask, known)
    encode_s, decode_s = best(repeats, lambda: positions.encode(mask, known),
                              lambda: positions.decode(meta, array, n, known))
    coded = mask if known is None else mask ^ known
    bound = bound_bytes(n, int(coded.sum()))
    speeds = _speeds(n, encode_s, decode_s)
    return f"{name:34}{array.nbytes:11,}{array.nbytes / bound:9.3f}{speeds}"


def _speeds(number, encode_s, decode_s):
    """Two cells: millions a second there and back."""
    millions = number / 1e6
    return f"{millions / encode_s:9.0f}{millions / decode_s:9.0f}"


def _libraries(n, repeats, gen, say):
    """Print other libraries' codes of the same gaps and bitmaps, without libraries not installed."""
    say(f"the bytes that are coded, by others: of the bound, and MB/s of those bytes there and back ({n:,} weights)")
    for sparsity, name in ((.7, "bitmap"), (.9, "gaps")):
        mask = gen.random(n) >= sparsity
        data = _bitmap(mask) if name == "bitmap" else _gaps(mask)
        bound = bound_bytes(n, int(mask.sum()))
        for library, coder in _coders(len(data)).items():
            say(_library_row(f"{name}, sparsity {sparsity}, {library}", repeats, data, coder, bound))


def _bitmap(mask):
    return np.packbits(mask).tobytes()


def _gaps(mask):
    gaps = np.diff(np.flatnonzero(mask), prepend=-1) - 1
    return gaps.astype(np.uint8).tobytes()


def _library_row(name, repeats, data, coder, bound):
    encode, decode = coder
    coded = encode(data)
    assert decode(coded) == data
    encode_s, decode_s = best(repeats, lambda: encode(data), lambda: decode(coded))
    return f"{name:45}{len(coded) / bound:9.3f}{_speeds(len(data), encode_s, decode_s)}"


def _coders(size):
    """``{name: (encode, decode)}`` of ``size`` bytes, from the installed libraries."""
    def deflated(module, strategy):
        def encode(data):
            coder = module.compressobj(1, module.DEFLATED, -15, 9, strategy)
            return coder.compress(data) + coder.flush()

        return encode, lambda coded: module.decompress(coded, -15, size)

    def zstandard(module):
        return {f"zstandard {level}": (module.ZstdCompressor(level).compress, module.ZstdDecompressor().decompress)
                for level in (1, 3)}

    def zlib(module):
        return {"zlib Huffman only": deflated(module, module.Z_HUFFMAN_ONLY), "zlib 1": deflated(module, 0)}

    def isal(module):
        return {"isal 1": deflated(module, 0)}

    def zlib_ng(module):
        return {"zlib-ng Huffman only": deflated(module, module.Z_HUFFMAN_ONLY)}

    def libdeflate(module):
        return {"libdeflate 1": (lambda data: bytes(module.deflate_compress(data, 1)),
                                 lambda coded: bytes(module.deflate_decompress(coded, size)))}

    def lz4(module):
        return {"lz4": (module.compress, module.decompress)}

    offers = {"zstandard": zstandard, "zlib": zlib, "isal.isal_zlib": isal, "zlib_ng.zlib_ng": zlib_ng,
              "deflate": libdeflate, "lz4.frame": lz4}
    coders = {}
    for name, offer in offers.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        coders |= offer(module)
    return coders


def _values(K, repeats, say):
    say(f"{K:,} values of a normal distribution: bytes a value, million values a second")
    say(f"{'':34}{'bytes':>11}{'encode':>9}{'decode':>9}")
    values = torch.randn(K, generator=torch.Generator().manual_seed(0)) * .01
    for spec in CODECS:
        codec = make(catalog.CODECS, spec)
        arrays = codec.encode(values)
        encode_s, decode_s = best(repeats, lambda: codec.encode(values), lambda: codec.decode(arrays, K))
        num_bytes = sum(array.nbytes for array in arrays.values())
        say(f"{spec:34}{num_bytes / K:11.3f}{_speeds(K, encode_s, decode_s)}")


def _path(n, repeats, say):
    """Print the steps of a model from the server's vector to a worker's, sparse and dense, and a bare copy."""
    P = -(-n // 16) * 16
    layout = Layout((Slot("weight", (n,), 0, n),), (), (), P, P, P)
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(P, generator=gen)
    copy = np.empty(5 * P, np.uint8)
    stage = staging(P, torch.device("cpu"))
    full = layout.full_mask()
    mask = full & (torch.rand(P, generator=gen) >= .9)
    sparse = _steps(x, layout.support(mask).clone(), stage, copy, repeats)
    dense = _steps(x, layout.support(full).clone(), stage, copy, repeats)
    say(f"a model of {n:,} weights, its mask known: milliseconds{'sparsity 0.9':>26}{'dense':>9}{'ratio':>9}")
    for name, seconds in sparse.items():
        sparse_ms = 1e3 * seconds
        dense_ms = 1e3 * dense[name]
        say(f"{name:60}{sparse_ms:14.2f}{dense_ms:9.2f}{dense_ms / sparse_ms:9.1f}")


def _steps(x, support, stage, copy, repeats):
    """``{step: seconds}`` of ``x`` on its ``support``; ``copy`` is memory for a copy of the message."""
    header = {"kind": "round"}
    values = x.index_select(0, support)
    message = frame.pack(header, {"values": values.numpy()})
    _, arrays = frame.unpack(message)
    arrived = torch.from_numpy(arrays["values"])
    base = stage.up(arrived, support)
    kept = positions.mask_of(support.numpy(), len(x))
    steps = {
        "gather the values": lambda: x.index_select(0, support),
        "pack the message, with its checksum": lambda: frame.pack(header, {"values": values.numpy()}),
        "unpack it, with its checksum": lambda: frame.unpack(message),
        "scatter the values": lambda: stage.up(arrived, support, base),
        "of these: the checksum, each way": lambda: frame.checksum(message),
        "a bare copy of the message": lambda: np.copyto(copy[: len(message)], message),
        "an update: gather the difference": lambda: stage.down(stage.difference(x, base, support)),
        "where the mask is new: its support": lambda: index_of(kept),
        "where the mask is new: its digest": lambda: digest(support)}
    seconds = best(repeats, *steps.values())
    return {"encode and decode, the first four": sum(seconds[:4])} | dict(zip(steps, seconds))
