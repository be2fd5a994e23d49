"""Masks on the wire, close to the fewest bits of any code.

That is log2 of the number of masks with as many kept weights. A mask ``(n,) bool`` is cut into
pieces of 2^20 weights, since layers are pruned differently. Each piece is sent as the smallest of
three forms. If the receiver holds a similar mask, the flips between the two are sent instead.

    bitmap   8 weights a byte: if neither kind of weight is rare, or if filters, rows or blocks
             repeat
    gaps     the distances between weights of the rarer kind: within 2 % of the bound for masks
             drawn at random; called holes if the pruned ones are the rarer
    runs     the lengths of stretches of equal weights, in turn: if weights of a kind are neighbours

Each form is squeezed by Zstandard. ``fedmpi bench wire`` measures bytes and speed, beside other
libraries.
"""

import numpy as np

from fedmpi.core.errors import WireError
from fedmpi.core.support import index_of
from fedmpi.wire import gaps
from fedmpi.wire.squeeze import expand, squeeze

# Weights a piece.
PIECE = 1 << 20
# With less than one rare weight in SPARSE, the mask is one piece: headers of pieces would show in
# the bytes.
SPARSE = 100
# Gaps are coded with at most one rare weight in RARE: above, a bitmap is as small.
RARE = 6
# Raised by numpy and Python for numbers that no sender would announce.
DAMAGED = (ValueError, IndexError, KeyError, TypeError, OverflowError)


def encode(mask, last_mask=None):
    """``(meta, array uint8)`` of ``mask (n,) bool``.

    ``last_mask (n,) bool`` is a mask already held by the receiver. Only the flips between them are
    sent if they are fewer than the weights of the rarer kind.
    """
    n = len(mask)
    k = int(np.count_nonzero(mask))
    rare = min(k, n - k)
    meta = {"k": k}
    if last_mask is mask:
        return _same(meta)
    if last_mask is not None:
        flips = mask ^ last_mask
        num_flips = int(np.count_nonzero(flips))
        # Equal masks need not be one array.
        if num_flips == 0:
            return _same(meta)
        rare_flips = min(num_flips, n - num_flips)
        if rare_flips < rare:
            mask = flips
            rare = rare_flips
            meta["flips"] = True
    step = PIECE
    if rare * SPARSE < n:
        step = n
    table, array = _in_pieces(mask, step)
    meta |= {"step": step, "pieces": table}
    return meta, array


def _same(meta):
    """The message of a mask equal to the receiver's."""
    return meta | {"same": True}, np.empty(0, np.uint8)


def decode(meta, array, n, last_mask=None):
    """bool (n,): the mask.

    WireError if the message does not fit, or needs a mask missing at this receiver.
    """
    needs_last_mask = "same" in meta or "flips" in meta
    if needs_last_mask and last_mask is None:
        raise WireError("the difference from a mask that this receiver does not hold")
    try:
        mask = _decoded(meta, array, n, last_mask)
    except DAMAGED as error:
        kind = type(error).__name__
        raise WireError(f"damaged mask: {kind} {error}") from error
    expected = meta["k"]
    k = int(np.count_nonzero(mask))
    length = len(mask)
    if length != n or k != expected:
        got = f"{k} of {length}"
        raise WireError(f"{expected} of {n} weights announced as kept, got {got}")
    return mask


def _decoded(meta, array, n, last_mask):
    if "same" in meta:
        mask = last_mask
    else:
        mask = _joined(meta["pieces"], meta["step"], array, n)
    if "flips" in meta:
        mask = mask ^ last_mask
    return mask


def mask_of(index, n):
    """bool (n,): True at the positions ``index``."""
    mask = np.zeros(n, bool)
    mask[index] = True
    return mask


def _in_pieces(mask, step):
    """``(table, array)``: pieces of ``step`` weights, each in its smallest form.

    A row of the table holds the bytes of a piece, its form, and the numbers needed by its reader.
    The pieces lie in the array one after the other.
    """
    n = len(mask)
    table = []
    # np.concatenate refuses an empty list, and a mask without weights has no pieces.
    empty = np.empty(0, np.uint8)
    arrays = [empty]
    for start in range(0, n, step):
        piece = mask[start: start + step]
        form, array = _smallest(piece)
        row = [len(array), *form]
        table.append(row)
        arrays.append(array)
    return table, np.concatenate(arrays)


def _joined(table, step, array, n):
    """bool (n,): the mask of the pieces in ``array``, as ``_in_pieces`` cut it."""
    _check_table(table, step, array, n)
    mask = np.empty(n, bool)
    start = 0
    places = range(0, n, step)
    for place, row in zip(places, table):
        size, form, *numbers = row
        if form not in FORMS:
            readable = ", ".join(FORMS)
            raise WireError(f"unknown form of a mask {form!r}; this version reads {readable}")
        stop = start + size
        content = array[start:stop]
        piece = mask[place: place + step]
        piece[:] = FORMS[form](content, len(piece), *numbers)
        start = stop
    return mask


def _check_table(table, step, array, n):
    """ValueError if the pieces are not as many as n weights need, or not as long as ``array``."""
    num_pieces = len(table)
    announced_bytes = 0
    for row in table:
        announced_bytes += row[0]
    is_cut = step >= 1 and num_pieces == -(-n // step)
    num_bytes = len(array)
    if is_cut and announced_bytes == num_bytes:
        return
    got = f"{num_pieces} pieces of {step}"
    raise ValueError(f"{got} for {n} weights in {num_bytes} bytes")


def _smallest(mask):
    """``(form, array)`` of ``mask (n,) bool``, n > 0, in the smallest form.

    ``form`` holds its name and the numbers needed by its reader.
    """
    return min(_forms(mask), key=_num_bytes)


def _num_bytes(candidate):
    _, array = candidate
    return array.nbytes


def _forms(mask):
    """``(form, array)`` of each form with a chance to be the smallest."""
    n = len(mask)
    k = int(np.count_nonzero(mask))
    rare = min(k, n - k)
    starts = _starts(mask)
    num_starts = int(np.count_nonzero(starts))
    # A mask at random has 2 k (n - k) / n starts, a clustered one less than nine tenths of this.
    # In integers: both sides are multiplied by 10 n.
    random_starts_n = 2 * k * (n - k)
    clustered = num_starts * n * 10 < 9 * random_starts_n
    has_rare_kind = rare * RARE <= n
    if clustered or not has_rare_kind:
        packed = np.packbits(mask)
        yield ["bitmap"], squeeze(packed)
    if 2 * num_starts < rare:
        yield _as_gaps("runs", starts)
    elif has_rare_kind:
        # At k = n - k either would do.
        if k == rare:
            yield _as_gaps("gaps", mask)
        else:
            yield _as_gaps("holes", ~mask)


def _starts(mask):
    """bool (n,): True at the first weight of each stretch of equal weights.

    The stretch before the first start is of False, and may be empty.
    """
    n = len(mask)
    starts = np.empty(n, bool)
    starts[0] = mask[0]
    before = mask[:-1]
    after = mask[1:]
    np.not_equal(before, after, out=starts[1:])
    return starts


def _as_gaps(name, marks):
    """``(form, array)``: the gaps between the positions at which ``marks (n,)`` is True."""
    index = index_of(marks)
    numbers, array = gaps.encode(index)
    return [name, *numbers], array


def _bitmap(array, n):
    num_bytes = -(-n // 8)
    packed = expand(array, num_bytes)
    bits = np.unpackbits(packed, count=n)
    return bits.view(bool)


def _gaps(array, n, *numbers):
    index = gaps.decode(array, n, *numbers)
    return mask_of(index, n)


def _holes(array, n, *numbers):
    return ~_gaps(array, n, *numbers)


def _runs(array, n, *numbers):
    starts = gaps.decode(array, n, *numbers)
    lengths = np.diff(starts, prepend=0, append=n)
    # Stretches of False and of True in turn.
    values = np.zeros(len(lengths), bool)
    values[1::2] = True
    return np.repeat(values, lengths)


# {name: form(array, n, *numbers) -> bool (n,)}
FORMS = {"bitmap": _bitmap, "gaps": _gaps, "holes": _holes, "runs": _runs}
