"""Bytes and speed of masks and values on the wire, on one core: against the bound of information and other libraries.

A row is measured in turns in one process, the best of several: a mask from bool to bytes and back to bool, values from
float32 to the arrays that go into a message and back. Speeds count all weights, zeros included.
"""

import importlib
import math
import time

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.client.received import digest
from fedmpi.plugins.spec import make
from fedmpi.core.layout import Layout, Slot
from fedmpi.core.support import index_of
from fedmpi.compute.staging import staging
from fedmpi.wire import frame, positions
from fedmpi.core.allocator import keep_freed_memory

SPARSITIES = (.5, .6, .7, .8, .9, .95, .98, .99)
CODECS = ("float32", "float16", "float16:entropy=true", "bfloat16", "bfloat16:entropy=true", "int8",
          "int8:entropy=true", "sign")


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
    """log2 of the number of masks of n weights of which k are kept, in bytes."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2) / 8


def best(repeats, *functions):
    """The least seconds of each of the ``functions``, which are called in turns, the first time to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        row = []
        for function in functions:
            start = time.perf_counter()
            function()
            row.append(time.perf_counter() - start)
        seconds.append(row)
    return [min(each) for each in zip(*seconds[1:])]


def _masks(n, repeats, gen, say):
    say(f"masks of {n:,} weights: bytes against the bound log2 C(n, k) for random ones; million weights a second")
    say(f"{'':34}{'bytes':>11}{'/ bound':>9}{'encode':>9}{'decode':>9}")

    def row(name, mask, known=None):
        meta, array = positions.encode(mask, known)
        what = mask if known is None else mask ^ known
        there, back = best(repeats, lambda: positions.encode(mask, known),
                           lambda: positions.decode(meta, array, n, known))
        say(f"{name:34}{array.nbytes:11,}{array.nbytes / bound_bytes(n, int(what.sum())):9.3f}{n / there / 1e6:9.0f}"
            f"{n / back / 1e6:9.0f}")

    for sparsity in SPARSITIES:
        row(f"random, sparsity {sparsity}", gen.random(n) >= sparsity)
    for sparsity in (.5, .9):
        for name, size in (("filters of 576 pruned", 576), ("kernels of 9 pruned", 9), ("blocks of 16 pruned", 16)):
            row(f"{name}, sparsity {sparsity}", np.repeat(gen.random(n // size + 1) >= sparsity, size)[:n])
        half = np.repeat(gen.random(n // 576 + 1) >= .5, 576)[:n]
        row(f"half the filters, then to {1 - (1 - sparsity) / 2:g}", half & (gen.random(n) >= sparsity))
    for sparsity in (.5, .9):
        known = gen.random(n) >= sparsity
        for share in (.001, .01, .1):
            row(f"sparsity {sparsity}, {share:.1%} flipped", known ^ (gen.random(n) < share), known)


def _libraries(n, repeats, gen, say):
    """The same gaps and bitmaps, coded by others; those that are not installed are left out."""
    say(f"the bytes that are coded, by others: of the bound, and MB/s of those bytes there and back ({n:,} weights)")
    for sparsity, name in ((.7, "bitmap"), (.9, "gaps")):
        mask = gen.random(n) >= sparsity
        gaps = np.diff(np.flatnonzero(mask), prepend=-1) - 1
        data = (np.packbits(mask) if name == "bitmap" else gaps.astype(np.uint8)).tobytes()
        for library, (there, back) in _coders(len(data)).items():
            coded = there(data)
            assert back(coded) == data
            seconds = best(repeats, lambda: there(data), lambda: back(coded))
            say(f"{f'{name}, sparsity {sparsity}, {library}':45}{len(coded) / bound_bytes(n, int(mask.sum())):9.3f}"
                f"{len(data) / seconds[0] / 1e6:9.0f}{len(data) / seconds[1] / 1e6:9.0f}")


def _coders(size):
    """``{name: (encode, decode)}`` of ``size`` bytes."""
    def deflated(module, strategy):
        def there(data):
            coder = module.compressobj(1, module.DEFLATED, -15, 9, strategy)
            return coder.compress(data) + coder.flush()
        return there, lambda coded: module.decompress(coded, -15, size)

    offers = {
        "zstandard": lambda m: {f"zstandard {level}": (
            m.ZstdCompressor(level).compress, m.ZstdDecompressor().decompress) for level in (1, 3)},
        "zlib": lambda m: {"zlib Huffman only": deflated(m, m.Z_HUFFMAN_ONLY), "zlib 1": deflated(m, 0)},
        "isal.isal_zlib": lambda m: {"isal 1": deflated(m, 0)},
        "zlib_ng.zlib_ng": lambda m: {"zlib-ng Huffman only": deflated(m, m.Z_HUFFMAN_ONLY)},
        "deflate": lambda m: {"libdeflate 1": (lambda data: bytes(m.deflate_compress(data, 1)),
                                               lambda coded: bytes(m.deflate_decompress(coded, size)))},
        "lz4.frame": lambda m: {"lz4": (m.compress, m.decompress)}}
    found = {}
    for name, offer in offers.items():
        try:
            found |= offer(importlib.import_module(name))
        except ImportError:
            continue
    return found


def _values(K, repeats, say):
    say(f"{K:,} values of a normal distribution: bytes a value, million values a second")
    say(f"{'':34}{'bytes':>11}{'encode':>9}{'decode':>9}")
    values = torch.randn(K, generator=torch.Generator().manual_seed(0)) * .01
    for spec in CODECS:
        codec = make(catalog.CODECS, spec)
        arrays = codec.encode(values)
        there, back = best(repeats, lambda: codec.encode(values), lambda: codec.decode(arrays, K))
        size = sum(array.nbytes for array in arrays.values())
        say(f"{spec:34}{size / K:11.3f}{K / there / 1e6:9.0f}{K / back / 1e6:9.0f}")


def _path(n, repeats, say):
    """The steps of a model from the server's vector to a worker's, sparse and with no weight pruned, and a bare
    copy."""
    P = -(-n // 16) * 16
    layout = Layout((Slot("weight", (n,), 0, n),), (), (), P, P, P)
    gen = torch.Generator().manual_seed(0)
    x, copy, stage = torch.randn(P, generator=gen), np.empty(5 * P, np.uint8), staging(P, torch.device("cpu"))
    dense = layout.full_mask()
    found = [_steps(x, layout.support(mask).clone(), stage, copy, repeats)
             for mask in (dense & (torch.rand(P, generator=gen) >= .9), dense)]
    say(f"a model of {n:,} weights, its mask known: milliseconds{'sparsity 0.9':>26}{'dense':>9}{'ratio':>9}")
    for name in found[0]:
        sparse, whole = (each[name] * 1e3 for each in found)
        say(f"{name:60}{sparse:14.2f}{whole:9.2f}{whole / sparse:9.1f}")


def _steps(x, support, stage, copy, repeats):
    """Seconds of the steps of ``x`` on its ``support``; ``copy`` is memory to copy the message into."""
    header, values = {"kind": "round"}, x.index_select(0, support)
    message = frame.pack(header, {"values": values.numpy()})
    arrived = torch.from_numpy(frame.unpack(message)[1]["values"])
    base, kept = stage.up(arrived, support), np.zeros(len(x), bool)
    kept[support.numpy()] = True
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
    seconds = dict(zip(steps, best(repeats, *steps.values())))
    return {"encode and decode, the first four": sum(list(seconds.values())[:4])} | seconds
