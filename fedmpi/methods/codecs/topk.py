"""Top-k: of each chunk of an update only the largest values travel, in a few bits each.

    total = feedback residual + update                residual: see ``fedmpi.wire.feedback``
    sent  = the k largest |total| of each chunk, rounded to 2^bits levels;  residual = total - sent

A chunk is ``chunk`` neighbours among the trained kept values of the message, so that positions are
coded within the mask. k is ``share`` of its length, to the nearest number, at least 1. Of equal
magnitudes the first are sent. Zeros are not sent, -0.0 is one of them.

A message is two arrays. ``form`` is JSON: the form of the positions, and the sizes in bytes of the
``parts``, which lie one behind the other:

    positions   of the sent values, by ``fedmpi.wire.positions``: within 2 % of their entropy
    levels      the largest scale, then the levels of a sign: float32
    scales      a byte a chunk: its mean sent magnitude, in eighths of an octave below the largest
    signs       a bit a sent value
    codes       the number of its level: bits - 1 bits a sent value, squeezed

Levels count in their chunk's scale. They are Lloyd's for this message: each is the mean of the
values next to it. With ``bits=32`` the values themselves, float32, stand for the last four parts.

At the share .0156 and 2 bits that is about .147 bits a weight: positions .117, signs .0156, codes
.012, scales .002. A fixed position of 12 bits instead would cost .219.
"""

import json
from typing import Literal

import numpy as np
import torch

from fedmpi.core.errors import WireError
from fedmpi.core.parts import Codec
from fedmpi.core.support import index_of
from fedmpi.methods.codecs.blocks import FLOAT32, SMALLEST
from fedmpi.methods.codecs.float32 import float32
from fedmpi.wire import positions
from fedmpi.wire.squeeze import expand, squeeze

# Bits that stand for values as they are.
WHOLE = 32
# A float32 without its sign, as a whole number: of two floats the larger has the larger number.
MAGNITUDE = np.int32(0x7FFFFFFF)
# Scales a factor of two.
OCTAVE = 8
# The scale of a chunk whose values come out as 0: nothing was sent, or 2^-31 of the largest scale.
NO_SCALE = 255
# After so many steps of Lloyd's, levels move by less than a hundredth.
LLOYD_STEPS = 20


def topk(share: float = 0.0156, chunk: int = 4096, bits: int = 2, feedback: float = 0.95,
         average: Literal["senders", "all"] = "all"):
    """The ``share`` of largest values of each chunk, ``bits`` each; updates only.

    ``bits`` are 2 to 8, or 32 for the values themselves. ``feedback`` is the decay of the residual
    of unsent values: 0 keeps none, 1 forgets nothing. ``average=senders``: the merge takes the mean
    of each value over the clients that sent it, as the authors' code does. With ``all`` an unsent
    value counts as 0.

    Models come down as float32: a model without its small values would be another one. Running
    averages travel as float32, too. Chunks are stretches of the whole kept vector, where the
    authors cut each layer into chunks.

    Paper: Sarfi et al. 2025, "Communication Efficient LLM Pre-training with SparseLoCo", arXiv
        2508.15706.
    Up: at the usual options about .15 bits a kept weight, 215 times fewer than float32.
    Down: models do not travel as top-k: float32, as that codec.
    Example: fedmpi train --strategy diloco --codec topk:share=0.0156,bits=2 --local-steps 30
    """
    _check(share, chunk, bits, feedback)

    def encode(values):
        values = values.cpu().numpy()
        index = largest(values, share, chunk)
        form, code = positions.encode(positions.mask_of(index, len(values)))
        chosen = _finite(values[index])
        parts = [code, chosen.view(np.uint8)]
        if bits != WHOLE:
            num_chunks = -(-len(values) // chunk)
            parts = [code, *quantised(chosen, index // chunk, num_chunks, bits)]
        sizes = [len(part) for part in parts]
        header = json.dumps([form, sizes], separators=(",", ":")).encode()
        return {"form": np.frombuffer(header, np.uint8), "parts": np.concatenate(parts)}

    def decode(arrays, K):
        mask, parts = _opened(arrays, K)
        index = index_of(mask)
        if bits == WHOLE:
            chosen = b"".join(parts)
            chosen = np.frombuffer(chosen, np.float32, len(chosen) // 4)
        else:
            chosen = restored(parts, index // chunk, -(-K // chunk), bits)
        if len(chosen) != len(index):
            raise WireError(f"{len(index)} positions, but {len(chosen)} values")
        values = np.zeros(K, np.float32)
        values[index] = chosen
        return torch.from_numpy(values)

    def sent(arrays, K):
        mask, _ = _opened(arrays, K)
        return torch.from_numpy(mask)

    def refuses(facts):
        if average == "senders" and not facts.linear:
            yield (f"average=senders: {facts.named['strategy']} does not merge by a mean, whose "
                   "senders could be counted; leave average out")

    def bound(values):
        back = decode(encode(values), len(values))
        error = (values.double() - back.double()).abs()
        # A millionth more, for the rounding of the error to float32.
        return (error * 1.000001 + SMALLEST).float()

    return Codec(
        encode,
        decode,
        bound,
        down=float32(),
        feedback=feedback,
        trained=True,
        sent=sent if average == "senders" else None,
        refuses=refuses,
    )


def _check(share, chunk, bits, feedback):
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], the part of each chunk to send, got {share}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 value, got {chunk}")
    if bits != WHOLE and not 2 <= bits <= 8:
        raise ValueError(f"bits must be 2 to 8, or {WHOLE} for the values themselves, got {bits}")
    if not 0 <= feedback <= 1:
        raise ValueError(f"feedback must be in [0, 1], the decay of the residual, got {feedback}")


def _opened(arrays, K):
    """``(mask (K,) bool, parts)``: the positions that a message holds, and the parts behind them.

    WireError for a damaged message.
    """
    content = arrays["parts"]
    try:
        form, sizes = json.loads(arrays["form"].tobytes())
        ends = np.cumsum(sizes, dtype=np.int64)
        is_sound = min(sizes) >= 0 and ends[-1] == len(content)
    except (ValueError, TypeError) as error:
        raise WireError(f"damaged form of a top-k message: {error}") from error
    if not is_sound:
        raise WireError(f"parts of {sizes} bytes in {len(content)}")
    code, *parts = np.split(content, ends[:-1])
    return positions.decode(form, code, K), parts


def _finite(values):
    """``values`` with 0 for NaN; the update of a client that diverged is refused anyway."""
    return np.nan_to_num(values, nan=0.0, posinf=FLOAT32.max, neginf=FLOAT32.min)


# --- the choice of values ---


def largest(values, share, chunk):
    """int64, sorted: the positions of the largest magnitudes of each chunk of ``values (K,)``.

    They are ``share`` of a chunk, at least one, without zeros. Of equal magnitudes the first ones
    are taken. Cost: three passes over the values; few of them are sorted.
    """
    magnitudes = values.view(np.int32) & MAGNITUDE
    k = _count(share, chunk)
    candidates = _candidates(magnitudes, k, chunk)
    sizes = magnitudes[candidates]
    of_chunk = candidates // chunk
    counts = np.bincount(of_chunk)
    most = np.full(len(counts), k)
    rest = len(values) % chunk
    if rest:
        # The last chunk is shorter.
        most[-1:] = _count(share, rest)
    chosen = _first(of_chunk, MAGNITUDE - sizes, counts, most)
    chosen &= sizes > 0
    return candidates[chosen]


def _count(share, length):
    """How many values of a chunk are sent."""
    return max(1, round(share * length))


def _candidates(magnitudes, k, chunk):
    """int64, sorted: positions that hold the k largest of each chunk, and few more.

    All of a last chunk that is shorter are among them.
    """
    whole = len(magnitudes) // chunk
    stop = whole * chunk
    chunks = magnitudes[:stop].reshape(whole, chunk)
    may_be = np.ones(len(magnitudes), bool)
    in_chunks = may_be[:stop].reshape(whole, chunk)
    np.greater_equal(chunks, _floors(chunks, k), out=in_chunks)
    return np.flatnonzero(may_be)


def _floors(chunks, k):
    """int32 (n, 1): no more than the k-th largest number of each row of ``chunks (n, chunk)``, and
    at least 1.

    A row is cut into 2k groups or more. Of the groups' maxima it is the k-th largest: so many
    groups have a member as large.
    """
    n, length = chunks.shape
    depth = max(1, length // (2 * k))
    width = length // depth
    if not n or width <= k:
        return np.ones((n, 1), np.int32)
    grouped = chunks[:, : depth * width]
    maxima = grouped.reshape(n, depth, width).max(axis=1)
    place = width - k
    maxima.partition(place, axis=1)
    floors = maxima[:, place, None]
    return np.maximum(floors, 1)


def _first(of_chunk, sizes, counts, most):
    """bool (n,): True for the ``most (chunks,)`` smallest ``sizes (n,)`` of each chunk.

    The entries stand by rising chunk, ``counts (chunks,)`` of each. Of equal sizes the first
    counts.
    """
    keys = of_chunk << 32 | sizes
    order = np.argsort(keys, kind="stable")
    starts = np.cumsum(counts) - counts
    ranks = np.arange(len(order)) - starts[of_chunk]
    is_first = np.zeros(len(order), bool)
    is_first[order[ranks < most[of_chunk]]] = True
    return is_first


# --- a few bits a value ---


def quantised(values, of_chunk, num_chunks, bits):
    """The parts of ``values (n,)``, ``of_chunk (n,)`` each, in so many ``bits``: uint8 arrays."""
    magnitudes = np.abs(values)
    top, scales = _scales(magnitudes, of_chunk, num_chunks)
    units = _scale_of_byte(top)[scales][of_chunk]
    # A chunk without a scale comes out as 0: its values count in any unit.
    units[units == 0] = 1.0
    in_units = magnitudes / units
    levels = lloyd(in_units, 1 << (bits - 1))
    edges = _edges(levels)
    codes = np.searchsorted(edges, in_units).astype(np.uint8)
    top_and_levels = np.concatenate([[top], levels]).astype(np.float32)
    signs = np.packbits(values < 0)
    planes = _planes(codes, bits - 1)
    return [top_and_levels.view(np.uint8), squeeze(scales), signs, squeeze(planes)]


def restored(parts, of_chunk, num_chunks, bits):
    """float32 (n,): the values that ``quantised`` wrote. WireError if they are not as many."""
    n = len(of_chunk)
    num_levels = 1 << (bits - 1)
    sizes = [len(part) for part in parts]
    expected = [4 * (1 + num_levels), -(-n // 8)]
    if len(parts) != 4 or sizes[::2] != expected:
        raise WireError(f"{n} values in parts of {sizes} bytes, expected {expected} for the levels "
                        "and signs")
    levels, scales, signs, codes = parts
    top, *levels = np.frombuffer(levels.tobytes(), np.float32).astype(np.float64)
    codes = _from_planes(codes, n, bits - 1)
    units = _scale_of_byte(top)[expand(scales, num_chunks)]
    magnitudes = np.array(levels)[codes] * units[of_chunk]
    is_negative = np.unpackbits(signs, count=n).view(bool)
    values = np.where(is_negative, -magnitudes, magnitudes)
    return values.clip(FLOAT32.min, FLOAT32.max).astype(np.float32)


def _scales(magnitudes, of_chunk, num_chunks):
    """``(top, scales (num_chunks,) uint8)``: the largest scale, and each chunk's below it."""
    counts = np.bincount(of_chunk, minlength=num_chunks)
    sums = np.bincount(of_chunk, magnitudes, minlength=num_chunks)
    means = sums / np.maximum(counts, 1)
    top = np.float32(means.max(initial=0.0))
    # Even the largest mean may be too small for a float32.
    shares = means / (float(top) or 1.0)
    octaves = np.full(num_chunks, -np.inf)
    np.log2(shares, out=octaves, where=shares > 0)
    steps = (-OCTAVE * octaves).clip(0, NO_SCALE)
    return top, steps.round().astype(np.uint8)


def _scale_of_byte(top):
    """float64 (256,): the scale that each byte stands for."""
    scales = float(top) * 2.0 ** (np.arange(256) / -OCTAVE)
    scales[NO_SCALE] = 0.0
    return scales


def lloyd(values, num_levels):
    """float64 (num_levels,), rising: levels near the ``values (n,)``, by Lloyd (1982).

    Each is the mean of the values that are nearest to it. They begin at even shares of the values.
    """
    ordered = np.sort(values).astype(np.float64)
    n = len(ordered)
    if not n:
        return np.zeros(num_levels)
    middles = 2 * np.arange(num_levels) + 1
    levels = ordered[middles * n // (2 * num_levels)]
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(LLOYD_STEPS):
        inner_cuts = np.searchsorted(ordered, _edges(levels))
        cuts = np.concatenate([[0], inner_cuts, [n]])
        counts = np.diff(cuts)
        # A level without values stays.
        np.divide(np.diff(sums[cuts]), counts, out=levels, where=counts > 0)
    return levels


def _edges(levels):
    """The values halfway between neighbouring levels."""
    return (levels[1:] + levels[:-1]) / 2


def _planes(codes, bits):
    """uint8: the last bit of all ``codes``, then their second bit, and so on, each packed."""
    planes = [np.packbits(codes >> bit & 1) for bit in range(bits)]
    return np.concatenate(planes)


def _from_planes(array, n, bits):
    """uint8 (n,): the codes of so many bits that ``_planes`` packed, squeezed to ``array``."""
    plane_bytes = -(-n // 8)
    planes = expand(array, bits * plane_bytes).reshape(bits, plane_bytes)
    codes = np.zeros(n, np.uint8)
    for bit, plane in enumerate(planes):
        codes |= np.unpackbits(plane, count=n) << bit
    return codes
