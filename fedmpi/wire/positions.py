"""Masks on the wire, close to the fewest bits that any code can take: log2 of how many masks keep as many weights.

A mask ``(n,) bool`` is cut into pieces of 2^20 weights, since layers are pruned differently, and each is sent as the
smallest of three forms; where it is close to a mask that the receiver holds, the flips between them are.

    bitmap   8 weights a byte: where neither kind of weight is rare, and where filters, rows or blocks repeat
    gaps     the distances between weights of the rarer kind: within 2 % of the bound for masks drawn at random
    runs     the lengths of stretches of equal weights, in turn: where weights of a kind are neighbours

each squeezed by Zstandard. ``fedmpi bench wire`` measures bytes and speed, beside other libraries.
"""

import numpy as np

from fedmpi.core.errors import WireError
from fedmpi.core.support import index_of
from fedmpi.wire.squeeze import expand, squeeze

PIECE = 1 << 20
SPARSE = 100      # one piece where the rarer kind is less than one weight in SPARSE: the pieces' headers would show
RARE = 6          # gaps are coded where the rarer kind is at most one weight in RARE: else the bitmap is as small
BYTES = 32        # mean distance up to which distances are bytes for Huffman's code: faster; above, and where they are
FEW = 1 << 12     # so few that a table of its code lengths would show, they are in Rice's code: smaller


def encode(mask, known=None):
    """``(meta, array uint8)`` of ``mask (n,) bool``; ``known (n,) bool`` is a mask that the receiver holds already,
    from which only the flips are sent where those are fewer than the weights of the rarer kind."""
    n, k = len(mask), int(np.count_nonzero(mask))
    meta, rare = {"k": k}, min(k, n - k)
    if known is mask:
        return meta | {"same": True}, np.empty(0, np.uint8)
    if known is not None:
        flips = mask ^ known
        f = int(np.count_nonzero(flips))
        if f == 0:
            return meta | {"same": True}, np.empty(0, np.uint8)
        if min(f, n - f) < rare:
            mask, meta, rare = flips, meta | {"flips": True}, min(f, n - f)
    step = PIECE if rare * SPARSE >= n else max(n, 1)
    pieces = [_smallest(mask[start: start + step]) for start in range(0, n, step)]
    meta |= {"step": step, "pieces": [[len(array), *form] for form, array in pieces]}
    return meta, np.concatenate([np.empty(0, np.uint8), *(array for _, array in pieces)])


def decode(meta, array, n, known=None):
    """bool (n,): the mask. Raises WireError where it does not fit, or needs a mask that the receiver lacks."""
    if ("same" in meta or "flips" in meta) and known is None:
        raise WireError("the difference from a mask that this receiver does not hold")
    try:
        mask = known if "same" in meta else _joined(meta["pieces"], meta["step"], array, n)
        mask = mask ^ known if "flips" in meta else mask
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise WireError(f"damaged mask: {type(error).__name__} {error}") from error
    if (found := (len(mask), int(np.count_nonzero(mask)))) != (n, meta["k"]):
        raise WireError(f"{meta['k']} of {n} weights announced as kept, got {found[1]} of {found[0]}")
    return mask


def mask_of(index, n):
    """bool (n,): True at the positions ``index``."""
    mask = np.zeros(n, bool)
    mask[index] = True
    return mask


def _joined(pieces, step, array, n):
    """bool (n,): the mask whose ``pieces`` of ``step`` weights ``array`` holds, one after the other."""
    mask, start = np.empty(n, bool), 0
    if step < 1 or len(pieces) != -(-n // step) or sum(piece[0] for piece in pieces) != len(array):
        raise ValueError(f"{len(pieces)} pieces of {step} for {n} weights in {len(array)} bytes")
    for place, (size, form, *numbers) in zip(range(0, n, step), pieces):
        if form not in FORMS:
            raise WireError(f"unknown form of a mask {form!r}; this version reads {', '.join(FORMS)}")
        part = mask[place: place + step]
        part[:] = FORMS[form](array[start: start + size], len(part), *numbers)
        start += size
    return mask


def _smallest(mask):
    """``(form, array)`` of ``mask (n,) bool``, n > 0, in the form that takes the fewest bytes; ``form`` is its name and
    the numbers that it needs to be read."""
    return min(_forms(mask), key=lambda form: form[1].nbytes)


def _forms(mask):
    """``(form, array)`` of each form that may be the smallest."""
    n, k = len(mask), int(np.count_nonzero(mask))
    starts = np.empty(n, bool)                            # of stretches of equal weights
    starts[0] = mask[0]
    np.not_equal(mask[1:], mask[:-1], out=starts[1:])
    num_starts, rare = int(np.count_nonzero(starts)), min(k, n - k)
    clustered = num_starts * n * 10 < 9 * 2 * k * (n - k)                 # masks at random have 2 k (n - k) / n
    if rare * RARE > n or clustered:
        yield ["bitmap"], squeeze(np.packbits(mask))
    if 2 * num_starts < rare:
        yield _distances("runs", index_of(starts))
    elif rare * RARE <= n:
        yield _distances("gaps", index_of(mask)) if k == rare else _distances("holes", index_of(~mask))


def _distances(name, index):
    """``(form, array)``: what lies between the sorted positions ``index``, a byte each or in Rice's code."""
    count = len(index)
    mean = int(index[-1]) // count if count else 0
    gaps = _small_gaps(index) if count > FEW and mean < BYTES else None
    if gaps is not None:
        return [name, count], squeeze(gaps)
    shift = int(0.4812 * mean).bit_length()
    low, high = _rice(np.diff(index.astype(np.int32), prepend=np.int32(-1)) - 1, shift)
    sent = squeeze(low)
    return [name, count, shift, len(sent), len(high)], np.concatenate([sent, squeeze(high)])


def _small_gaps(index):
    """uint8: what lies between neighbours of ``index (k,)``, k > 0, where that fits a byte everywhere; else None."""
    gaps = np.diff(index.astype(np.uint8), prepend=np.uint8(255)) - np.uint8(1)          # modulo 256
    fits = int(gaps.sum(dtype=np.int64)) == int(index[-1]) + 1 - len(index)              # else the sum lacks
    return gaps if fits else None


def _rice(numbers, shift):
    """``(low, high)`` uint8: the last ``shift`` bits of all numbers, a plane after the other, and the rest in unary.

    Rice (1979): numbers of a geometric distribution within 1 % of their entropy, where shift is the number of bits of
    0.48 mean (Kiely 2004; 0.48 is the logarithm of the golden ratio)."""
    planes = [np.packbits((numbers & 1 << bit).astype(bool)) for bit in range(shift)]
    stops = np.cumsum((numbers >> shift) + 1, dtype=np.int64) - 1
    unary = mask_of(stops, int(stops[-1]) + 1 if len(stops) else 0)
    return np.concatenate([np.empty(0, np.uint8), *planes]), np.packbits(unary)


def _unrice(array, n, count, shift, cut, high):
    """int64 (count,): the numbers, adding up to less than n, that ``_rice`` has coded; the first ``cut`` bytes of
    ``array`` are squeezed planes, the others ``high`` bytes of unary numbers, squeezed."""
    if not (0 <= shift < 32 and 0 <= cut <= len(array) and 0 <= 8 * high <= count + (n >> shift) + 7):
        raise ValueError(f"the last {shift} bits in {cut} of {len(array)} bytes, the rest in {high}")
    stops = np.flatnonzero(np.unpackbits(expand(array[cut:], high)).view(bool))
    if len(stops) != count:
        raise ValueError(f"{count} positions announced, got {len(stops)}")
    numbers = np.diff(stops, prepend=-1) - 1 << shift
    planes = expand(array[:cut], shift * -(-count // 8)).reshape(shift, -(-count // 8))
    for bit, plane in enumerate(planes):
        numbers |= np.unpackbits(plane, count=count).astype(np.int64) << bit
    return numbers


def _positions(array, n, count, *rice):
    """int64 (count,), sorted: the positions below n that ``_distances`` has coded."""
    if not 0 <= count <= n:
        raise ValueError(f"{count} positions below {n}")
    gaps = _unrice(array, n, count, *rice) if rice else expand(array, count).astype(np.int64)
    gaps += 1
    index = np.cumsum(gaps, out=gaps)
    index -= 1
    if count and not index[-1] < n:
        raise ValueError(f"position {index[-1]} of {n}")
    return index


def _bitmap(array, n):
    return np.unpackbits(expand(array, -(-n // 8)), count=n).view(bool)


def _gaps(array, n, *numbers):
    return mask_of(_positions(array, n, *numbers), n)


def _holes(array, n, *numbers):
    return ~_gaps(array, n, *numbers)


def _runs(array, n, *numbers):
    starts = _positions(array, n, *numbers)
    return np.repeat(np.arange(len(starts) + 1) % 2 == 1, np.diff(starts, prepend=0, append=n))


FORMS = {"bitmap": _bitmap, "gaps": _gaps, "holes": _holes, "runs": _runs}     # form(array, n, *numbers) -> bool (n,)
