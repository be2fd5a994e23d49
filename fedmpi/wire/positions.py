"""Sorted positions on the wire, in the smallest of several encodings, chosen a message.

A set of ``k`` sorted positions in ``[0, n)`` is sent as one of ``CODES``; a set close to one that the receiver holds
is sent as the positions where they differ. Each code is (size, encode, decode): the exact bytes it would take, found
without encoding; the array it sends; the positions back.
"""

from typing import Callable, NamedTuple

import numpy as np

from fedmpi.errors import WireError


class Code(NamedTuple):
    """``size(index, n) -> bytes``, ``encode(index, n) -> array``, ``decode(array, n) -> index int32``."""

    size: Callable
    encode: Callable
    decode: Callable


def _complement(index, n):
    gone = np.ones(n, bool)
    gone[index] = False
    return np.flatnonzero(gone).astype(np.int32)


def _bits(index, n):
    bits = np.zeros(n, bool)
    bits[index] = True
    return np.packbits(bits)


def _gaps(index):
    """How many positions lie between neighbours."""
    return np.diff(index, prepend=-1) - 1


def _gap_bytes(index, n=0):
    return len(index) + int((_gaps(index) // 255).sum())


def _gap_encode(index, n=0):
    """A byte a gap; 255 says: 255 further, and read on."""
    gaps = _gaps(index)
    more = gaps // 255
    out = np.full(len(index) + int(more.sum()), 255, np.uint8)
    out[np.cumsum(more + 1) - 1] = gaps % 255
    return out


def _gap_decode(array, n=0):
    ends = array != 255
    reached = np.cumsum(array, dtype=np.int64)[ends]
    return (reached + np.arange(len(reached))).astype(np.int32)


def _bounds(index):
    """Where runs of neighbours start and stop, in turn: strictly increasing, of even length."""
    if len(index) == 0:
        return index
    breaks = np.flatnonzero(np.diff(index) != 1)
    starts = index[np.concatenate([[0], breaks + 1])]
    stops = index[np.concatenate([breaks, [len(index) - 1]])] + 1
    return np.stack([starts, stops], axis=1).reshape(-1)


def _runs_decode(array, n):
    starts, stops = _gap_decode(array).reshape(-1, 2).T
    lengths = stops - starts
    first = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return (first + np.arange(len(first))).astype(np.int32) if len(starts) else np.empty(0, np.int32)


CODES = {
    "all": Code(lambda index, n: 0 if len(index) == n else 1 << 62,
                lambda index, n: np.empty(0, np.uint8),
                lambda array, n: np.arange(n, dtype=np.int32)),
    "bitmap": Code(lambda index, n: -(-n // 8), _bits,
                   lambda array, n: np.flatnonzero(np.unpackbits(array, count=n)).astype(np.int32)),
    "gaps": Code(_gap_bytes, _gap_encode, _gap_decode),
    "holes": Code(lambda index, n: _gap_bytes(_complement(index, n)) if 2 * len(index) > n else 1 << 62,
                  lambda index, n: _gap_encode(_complement(index, n)),
                  lambda array, n: _complement(_gap_decode(array), n)),
    "runs": Code(lambda index, n: _gap_bytes(_bounds(index)),
                 lambda index, n: _gap_encode(_bounds(index)), _runs_decode),
    "index16": Code(lambda index, n: 2 * len(index) if n <= 1 << 16 else 1 << 62,
                    lambda index, n: index.astype(np.uint16), lambda array, n: array.astype(np.int32)),
    "index32": Code(lambda index, n: 4 * len(index), lambda index, n: index.astype(np.int32), lambda array, n: array),
}


def encode(index, n, known=None):
    """``(meta, array)`` for the sorted positions ``index (k,) int32`` below ``n``; ``known`` is a set of positions
    that the receiver holds already, from which only the differences are sent where that is smaller."""
    choices = [(code.size(index, n), name, index) for name, code in CODES.items()]
    if known is not None:
        flips = np.setxor1d(known, index, assume_unique=True).astype(np.int32)
        if len(flips) == 0:
            return {"code": "same", "n": n, "k": len(index)}, np.empty(0, np.uint8)
        choices += [(code.size(flips, n), "flip-" + name, flips) for name, code in CODES.items()]
    _, name, what = min(choices, key=lambda choice: choice[0])
    meta = {"code": name, "n": n, "k": len(index)}
    return meta, CODES[name.removeprefix("flip-")].encode(what, n)


def decode(meta, array, known=None):
    """int32 (k,), sorted: the positions. Raises WireError where they need a set that the receiver lacks."""
    name, n = meta["code"], meta["n"]
    if (name == "same" or name.startswith("flip-")) and known is None:
        raise WireError(f"positions sent as {name} against a set that this receiver does not hold")
    if name != "same" and name.removeprefix("flip-") not in CODES:
        raise WireError(f"unknown position code {name!r}; this version reads same, {', '.join(CODES)}")
    try:
        index = known if name == "same" else CODES[name.removeprefix("flip-")].decode(array, n)
    except (ValueError, IndexError) as error:
        raise WireError(f"damaged positions in code {name}: {error}") from error
    if name.startswith("flip-"):
        index = np.setxor1d(known, index, assume_unique=True)
    if len(index) != meta["k"] or (len(index) and (index[0] < 0 or index[-1] >= n)):
        raise WireError(f"{meta['k']} positions below {n} announced, got {len(index)} other ones")
    return index.astype(np.int32, copy=False)
