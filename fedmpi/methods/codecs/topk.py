"""Top-k: of each chunk of an update only the largest values travel, in a few bits each.

    total = feedback memory + update                    memory: see ``fedmpi.wire.feedback``
    sent  = the k largest |total| of each chunk, rounded to 2^bits levels;  memory = total - sent

A chunk is ``chunk`` neighbours among the trained kept values of the message, so that positions are
coded within the mask. k is ``share`` of its length, to the nearest number, at least 1. Of equal
magnitudes the first are sent. Zeros are not sent, -0.0 is one of them.

A message holds

    positions   of the sent values, by ``fedmpi.wire.positions``: within 2 % of their entropy
    levels      the largest scale, then the levels a sign: float32
    scales      a byte a chunk: its mean sent magnitude, in eighths of an octave below the largest
    signs       a bit a sent value
    codes       the number of its level: bits - 1 bits a sent value, squeezed

Levels count in their chunk's scale. They are Lloyd's for this message: each is the mean of the
values next to it. With ``bits=32`` values are sent as they are instead of the last four.

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
from fedmpi.methods.codecs.values import FLOAT32, SMALLEST, float32
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

    ``bits`` are 2 to 8, or 32 for the values themselves. ``feedback`` is the decay of the memory of
    unsent values: 0 is no memory, 1 forgets nothing. ``average=senders``: the merge takes the mean
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
        if bits == WHOLE:
            arrays = {"values": chosen}
        else:
            arrays = quantised(chosen, index // chunk, -(-len(values) // chunk), bits)
        form = json.dumps(form, separators=(",", ":")).encode()
        return {"form": np.frombuffer(form, np.uint8), "positions": code} | arrays

    def decode(arrays, K):
        index = index_of(_mask(arrays, K))
        if bits == WHOLE:
            chosen = arrays["values"]
        else:
            chosen = restored(arrays, index // chunk, -(-K // chunk), bits)
        if len(chosen) != len(index):
            raise WireError(f"{len(index)} positions, but {len(chosen)} values")
        values = np.zeros(K, np.float32)
        values[index] = chosen
        return torch.from_numpy(values)

    def sent(arrays, K):
        return torch.from_numpy(_mask(arrays, K))

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
        raise ValueError(f"feedback must be in [0, 1], the decay of the memory, got {feedback}")


def _mask(arrays, K):
    """bool (K,): the positions that a message holds. WireError for a damaged one."""
    try:
        form = json.loads(arrays["form"].tobytes())
    except ValueError as error:
        raise WireError(f"damaged form of positions: {error}") from error
    return positions.decode(form, arrays["positions"], K)


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
    whole = len(values) // chunk
    chunks = magnitudes[: whole * chunk].reshape(whole, chunk)
    may_be = np.empty(len(values), bool)
    np.greater_equal(chunks, _floors(chunks, k), out=may_be[: chunks.size].reshape(whole, chunk))
    may_be[chunks.size:] = True
    candidates = np.flatnonzero(may_be)
    sizes = magnitudes[candidates]
    of_chunk = candidates // chunk

    # Each chunk's candidates by falling magnitude, equal ones by rising position.
    keys = of_chunk << 32 | (MAGNITUDE - sizes)
    order = np.argsort(keys, kind="stable")
    counts = np.bincount(of_chunk, minlength=whole)
    starts = np.cumsum(counts) - counts
    ranks = np.arange(len(order)) - starts[of_chunk]
    most = np.full(len(counts), k)
    # The last chunk may be shorter.
    most[whole:] = _count(share, len(values) - chunks.size)
    chosen = np.zeros(len(candidates), bool)
    chosen[order[ranks < most[of_chunk]]] = True
    chosen &= sizes > 0
    return candidates[chosen]


def _count(share, length):
    """How many values of a chunk are sent."""
    return max(1, round(share * length))


def _floors(chunks, k):
    """int32 (n, 1): no more than the k-th largest number of each row of ``chunks (n, chunk)``, and
    at least 1.

    A row is cut into 2k groups or more: k of them have a member as large as the k-th largest of
    all groups' maxima.
    """
    n, length = chunks.shape
    depth = max(1, length // (2 * k))
    width = length // depth
    if not n or width <= k:
        return np.ones((n, 1), np.int32)
    groups = chunks[:, : depth * width].reshape(n, depth, width)
    maxima = groups.max(axis=1)
    maxima.partition(width - k, axis=1)
    return np.maximum(maxima[:, width - k, None], 1)


# --- a few bits a value ---


def quantised(sent, of_chunk, num_chunks, bits):
    """The arrays of the ``sent (n,)`` values, ``of_chunk (n,)`` each, in so many ``bits``."""
    magnitudes = np.abs(sent)
    top, scales = _scales(magnitudes, of_chunk, num_chunks)
    scale_of_value = _scale_table(top)[scales][of_chunk]
    # A chunk without a scale comes out as 0: its values count in any unit.
    units = np.where(scale_of_value > 0, scale_of_value, 1.0)
    levels = lloyd(magnitudes / units, 1 << (bits - 1))
    codes = _nearest(levels, magnitudes / units)
    return {
        "levels": np.concatenate([[top], levels]).astype(np.float32),
        "scales": squeeze(scales),
        "signs": np.packbits(sent < 0),
        "codes": squeeze(_planes(codes, bits - 1)),
    }


def restored(arrays, of_chunk, num_chunks, bits):
    """float32 (n,): the values that ``quantised`` wrote. WireError if they are not as many."""
    n = len(of_chunk)
    plane_bytes = -(-n // 8)
    levels, signs = arrays["levels"], arrays["signs"]
    num_levels = 1 << (bits - 1)
    if len(levels) != 1 + num_levels or len(signs) != plane_bytes:
        raise WireError(f"{n} values with {8 * len(signs)} signs and {len(levels)} levels, "
                        f"expected {num_levels} and a scale")
    planes = expand(arrays["codes"], (bits - 1) * plane_bytes).reshape(bits - 1, plane_bytes)
    codes = np.zeros(n, np.uint8)
    for bit, plane in enumerate(planes):
        codes |= np.unpackbits(plane, count=n) << bit
    scales = expand(arrays["scales"], num_chunks)
    scale_of_value = _scale_table(levels[0])[scales][of_chunk]
    magnitudes = levels[1:].astype(np.float64)[codes] * scale_of_value
    negative = np.unpackbits(signs, count=n).view(bool)
    values = np.where(negative, -magnitudes, magnitudes)
    return values.clip(FLOAT32.min, FLOAT32.max).astype(np.float32)


def _scales(magnitudes, of_chunk, num_chunks):
    """``(top, scales (num_chunks,) uint8)``: the largest scale, and each chunk's below it."""
    counts = np.bincount(of_chunk, minlength=num_chunks)
    sums = np.bincount(of_chunk, magnitudes, minlength=num_chunks)
    means = sums / np.maximum(counts, 1)
    top = np.float32(means.max(initial=0.0))
    # A mean may round to a top of 0.
    below = means / (float(top) or 1.0)
    steps = np.full(num_chunks, float(NO_SCALE))
    np.log2(below, out=steps, where=below > 0)
    steps = np.where(below > 0, -OCTAVE * steps, NO_SCALE)
    return top, steps.round().clip(0, NO_SCALE).astype(np.uint8)


def _scale_table(top):
    """float64 (256,): the scale that each byte stands for."""
    table = float(top) * 2.0 ** (np.arange(256) / -OCTAVE)
    table[NO_SCALE] = 0.0
    return table


def lloyd(values, num_levels):
    """float64 (num_levels,), rising: levels near the ``values (n,)``, by Lloyd (1982).

    Each is the mean of the values that are nearest to it. They begin at even shares of the values.
    """
    ordered = np.sort(values)
    n = len(ordered)
    if not n:
        return np.zeros(num_levels)
    places = (2 * np.arange(num_levels) + 1) * n // (2 * num_levels)
    levels = ordered[places].astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    for _ in range(LLOYD_STEPS):
        edges = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        cuts = np.concatenate([[0], edges, [n]])
        counts = np.diff(cuts)
        # A level without values stays.
        np.divide(np.diff(sums[cuts]), counts, out=levels, where=counts > 0)
    return levels


def _nearest(levels, values):
    """uint8 (n,): the number of the level nearest to each value."""
    edges = (levels[1:] + levels[:-1]) / 2
    return np.searchsorted(edges, values).astype(np.uint8)


def _planes(codes, bits):
    """uint8: the last bit of all ``codes``, then their second bit, and so on, each packed."""
    planes = [np.packbits(codes >> bit & 1) for bit in range(bits)]
    return np.concatenate(planes)
