"""Masks on the wire, close to the fewest bits of any code: log2 of the number of masks with as many kept weights.

A mask ``(n,) bool`` is cut into pieces of 2^20 weights, since layers are pruned differently. Each piece is sent as the
smallest of three forms. If the receiver holds a similar mask, the flips between the two are sent instead.

    bitmap   8 weights a byte: if neither kind of weight is rare, or if filters, rows or blocks repeat
    gaps     the distances between weights of the rarer kind: within 2 % of the bound for masks drawn at random
    runs     the lengths of stretches of equal weights, in turn: if weights of a kind are neighbours

Each form is squeezed by Zstandard. ``fedmpi bench wire`` measures bytes and speed, beside other libraries.
"""

import numpy as np

from fedmpi.core.errors import WireError
from fedmpi.core.support import index_of
from fedmpi.wire.squeeze import expand, squeeze

# Weights a piece.
PIECE = 1 << 20
# With less than one rare weight in SPARSE, the mask is one piece: headers of pieces would show in the bytes.
SPARSE = 100
# Gaps are coded with at most one rare weight in RARE: above, a bitmap is as small.
RARE = 6
# Distances are bytes for Huffman's code up to a mean distance of BYTES, since this is faster; above, they are in Rice's
# code. So are at most FEW of them: a table of Huffman's code lengths would show in the bytes.
BYTES = 32
FEW = 1 << 12


def encode(mask, last_mask=None):
    """``(meta, array uint8)`` of ``mask (n,) bool``; ``last_mask (n,) bool`` is a mask that the receiver
    has. Only the flips between them are sent if they are fewer than the weights of the rarer kind."""
    n = len(mask)
    k = int(np.count_nonzero(mask))
    rare = min(k, n - k)
    meta = {"k": k}
    if last_mask is mask:
        return _same(meta)
    if last_mask is not None:
        flips = mask ^ last_mask
        num_flips = int(np.count_nonzero(flips))
        if num_flips == 0:
            return _same(meta)
        rare_flips = min(num_flips, n - num_flips)
        if rare_flips < rare:
            mask = flips
            rare = rare_flips
            meta["flips"] = True
    step = max(n, 1)
    if rare * SPARSE >= n:
        step = PIECE
    meta |= {"step": step, "pieces": []}
    # First an empty array: a mask of no weights has no pieces.
    arrays = [np.empty(0, np.uint8)]
    for start in range(0, n, step):
        form, array = _smallest(mask[start: start + step])
        meta["pieces"].append([len(array), *form])
        arrays.append(array)
    return meta, np.concatenate(arrays)


def _same(meta):
    """The message of a mask equal to the receiver's."""
    return meta | {"same": True}, np.empty(0, np.uint8)


def decode(meta, array, n, last_mask=None):
    """bool (n,): the mask. WireError if the message does not fit, or needs a mask missing at this receiver."""
    if last_mask is None and ("same" in meta or "flips" in meta):
        raise WireError("the difference from a mask that this receiver does not hold")
    try:
        if "same" in meta:
            mask = last_mask
        else:
            mask = _joined(meta["pieces"], meta["step"], array, n)
        if "flips" in meta:
            mask = mask ^ last_mask
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise WireError(f"damaged mask: {type(error).__name__} {error}") from error
    k = int(np.count_nonzero(mask))
    if len(mask) != n or k != meta["k"]:
        raise WireError(f"{meta['k']} of {n} weights announced as kept, got {k} of {len(mask)}")
    return mask


def mask_of(index, n):
    """bool (n,): True at the positions ``index``."""
    mask = np.zeros(n, bool)
    mask[index] = True
    return mask


def _joined(pieces, step, array, n):
    """bool (n,): the mask made of ``pieces`` of ``step`` weights; their bytes lie in ``array``, one after the other."""
    num_bytes = sum(piece[0] for piece in pieces)
    is_sound = step >= 1 and len(pieces) == -(-n // step)
    if not is_sound or num_bytes != len(array):
        raise ValueError(f"{len(pieces)} pieces of {step} for {n} weights in {len(array)} bytes")
    mask = np.empty(n, bool)
    start = 0
    places = range(0, n, step)
    for place, (size, form, *numbers) in zip(places, pieces):
        if form not in FORMS:
            raise WireError(f"unknown form of a mask {form!r}; this version reads {', '.join(FORMS)}")
        part = mask[place: place + step]
        content = array[start: start + size]
        part[:] = FORMS[form](content, len(part), *numbers)
        start += size
    return mask


def _smallest(mask):
    """``(form, array)`` of ``mask (n,) bool``, n > 0, in the smallest form; ``form`` holds its name and the numbers
    needed by its reader."""
    return min(_forms(mask), key=lambda form: form[1].nbytes)


def _forms(mask):
    """``(form, array)`` of each form with a chance to be the smallest."""
    n = len(mask)
    k = int(np.count_nonzero(mask))
    rare = min(k, n - k)
    # True at the first weight of each stretch of equal weights.
    starts = np.empty(n, bool)
    starts[0] = mask[0]
    np.not_equal(mask[1:], mask[:-1], out=starts[1:])
    num_starts = int(np.count_nonzero(starts))
    # A mask at random has 2 k (n - k) / n starts, a clustered one less than nine tenths of this.
    random_starts_n = 2 * k * (n - k)
    clustered = num_starts * n * 10 < 9 * random_starts_n
    if rare * RARE > n or clustered:
        yield ["bitmap"], squeeze(np.packbits(mask))
    if 2 * num_starts < rare:
        yield _distances("runs", index_of(starts))
    elif rare * RARE <= n:
        if k == rare:
            yield _distances("gaps", index_of(mask))
        else:
            yield _distances("holes", index_of(~mask))


def _distances(name, index):
    """``(form, array)``: the distances between the sorted positions ``index``, a byte each or in Rice's code."""
    count = len(index)
    mean = int(index[-1]) // count if count else 0
    if count > FEW and mean < BYTES:
        gaps = _small_gaps(index)
        if gaps is not None:
            return [name, count], squeeze(gaps)
    shift = int(0.4812 * mean).bit_length()
    steps = np.diff(index.astype(np.int32), prepend=np.int32(-1))
    low, high = _rice(steps - 1, shift)
    squeezed_low = squeeze(low)
    form = [name, count, shift, len(squeezed_low), len(high)]
    return form, np.concatenate([squeezed_low, squeeze(high)])


def _small_gaps(index):
    """uint8: the gaps between neighbours of ``index (k,)``, k > 0, if all of them fit a byte; else None."""
    # Modulo 256; their sum tells whether one of them was larger.
    steps = np.diff(index.astype(np.uint8), prepend=np.uint8(255))
    gaps = steps - np.uint8(1)
    expected_sum = int(index[-1]) + 1 - len(index)
    if int(gaps.sum(dtype=np.int64)) != expected_sum:
        return None
    return gaps


def _rice(numbers, shift):
    """``(low, high)`` uint8: the last ``shift`` bits of all numbers, one plane after the other, and the rest in unary.

    Rice (1979): numbers of a geometric distribution within 1 % of their entropy, if shift is the number of bits of
    0.48 mean (Kiely 2004; 0.48 is the logarithm of the golden ratio)."""
    planes = [np.empty(0, np.uint8)]
    for bit in range(shift):
        plane = (numbers & 1 << bit).astype(bool)
        planes.append(np.packbits(plane))
    # A number's unary digits end at its stop.
    ends = np.cumsum((numbers >> shift) + 1, dtype=np.int64)
    num_bits = 0
    if len(ends):
        num_bits = int(ends[-1])
    unary = mask_of(ends - 1, num_bits)
    return np.concatenate(planes), np.packbits(unary)


def _unrice(array, n, count, shift, cut, high):
    """int64 (count,): the numbers coded by ``_rice``, adding up to less than n. ``array`` holds ``cut`` bytes of
    squeezed planes, then ``high`` bytes of unary numbers, squeezed."""
    is_sound = 0 <= shift < 32 and 0 <= cut <= len(array)
    # A one a number, and zeros for all of n, rounded up to bytes.
    if not is_sound or not 0 <= 8 * high <= count + (n >> shift) + 7:
        raise ValueError(f"the last {shift} bits in {cut} of {len(array)} bytes, the rest in {high}")
    unary = np.unpackbits(expand(array[cut:], high)).view(bool)
    stops = np.flatnonzero(unary)
    if len(stops) != count:
        raise ValueError(f"{count} positions announced, got {len(stops)}")
    numbers = np.diff(stops, prepend=-1) - 1 << shift
    plane_bytes = -(-count // 8)
    planes = expand(array[:cut], shift * plane_bytes).reshape(shift, plane_bytes)
    for bit, plane in enumerate(planes):
        digits = np.unpackbits(plane, count=count)
        numbers |= digits.astype(np.int64) << bit
    return numbers


def _positions(array, n, count, *rice):
    """int64 (count,), sorted: the positions below n coded by ``_distances``."""
    if not 0 <= count <= n:
        raise ValueError(f"{count} positions below {n}")
    if rice:
        gaps = _unrice(array, n, count, *rice)
    else:
        gaps = expand(array, count).astype(np.int64)
    gaps += 1
    # In place: the vector is long.
    index = np.cumsum(gaps, out=gaps)
    index -= 1
    if count and not index[-1] < n:
        raise ValueError(f"position {index[-1]} of {n}")
    return index


def _bitmap(array, n):
    num_bytes = -(-n // 8)
    bits = expand(array, num_bytes)
    return np.unpackbits(bits, count=n).view(bool)


def _gaps(array, n, *numbers):
    return mask_of(_positions(array, n, *numbers), n)


def _holes(array, n, *numbers):
    return ~_gaps(array, n, *numbers)


def _runs(array, n, *numbers):
    starts = _positions(array, n, *numbers)
    # Stretches of True and of False in turn; the first, perhaps empty, is of False.
    values = np.arange(len(starts) + 1) % 2 == 1
    lengths = np.diff(starts, prepend=0, append=n)
    return np.repeat(values, lengths)


# {name: form(array, n, *numbers) -> bool (n,)}
FORMS = {"bitmap": _bitmap, "gaps": _gaps, "holes": _holes, "runs": _runs}
