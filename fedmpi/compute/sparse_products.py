"""Products of a linear layer that skip pruned weights, compiled by numba for this processor.

    forward  Y = X W^T          dX = dY W          dW = dY^T X, at the kept weights

``X (B, inputs)``, ``Y (B, outputs)`` and ``W (outputs, inputs)`` are float32 on the CPU, and W is 0
off the mask. The kept weights are packed anew in each product, as they move in each step. Products
go by tiles of TILE samples: a tile's columns are laid out one after the other, so that one weight
multiplies TILE neighbouring numbers. Sums have a fixed order: the same bits each time.

Two kernels: ``single`` takes 8 kept weights of a row at a time, and any mask. ``block`` takes kept
blocks of 8 x 8, and masks made of them. One core of an AMD EPYC with AVX-512, 1024 samples, n = 768,
sparsity .95: the products of ``block`` do 90 GFLOP/s, those of ``single`` 45; a dense product 97.
See ``fedmpi bench sparse``.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit

SIDE = 8
# Samples whose columns are laid out at once.
TILE = 128
# Entries that a group of SIDE weights of a row lacks: their weight is 0.
NO_PLACE = -1
# Sums may be reordered, and products added without rounding in between. NaN and infinity count.
FAST = {"contract", "reassoc", "nsz"}


class Side(NamedTuple):
    """The kept weights of W, or of its transpose, row after row."""

    starts: np.ndarray            # (rows + 1,) int64: the first group or block of each row
    columns: np.ndarray           # int64: of each weight, or of each block
    places: np.ndarray            # int64: of each weight in W, or of each block's first weight


class Pattern(NamedTuple):
    """The kept weights of a layer for one of the kernels."""

    by_rows: Side
    by_columns: Side
    shape: tuple                  # (outputs, inputs)
    multiply: object              # compiled functions of the kernel
    differentiate: object


# --- patterns of a mask ---


def single(mask):
    """The ``Pattern`` of any ``mask (outputs, inputs) bool``, numpy's."""
    inputs = mask.shape[1]
    return Pattern(
        by_rows=_groups(mask, inputs, 1),
        by_columns=_groups(mask.T, 1, inputs),
        shape=mask.shape,
        multiply=_multiply_single,
        differentiate=_differentiate_single)


def block(mask):
    """The ``Pattern`` of a mask made of whole blocks; None for any other mask."""
    outputs, inputs = mask.shape
    if outputs % SIDE or inputs % SIDE:
        return None
    tiles = mask.reshape(outputs // SIDE, SIDE, inputs // SIDE, SIDE)
    kept = tiles[:, 0, :, 0]
    if not (tiles == kept[:, None, :, None]).all():
        return None
    return Pattern(
        by_rows=_blocks(kept, inputs, 1),
        by_columns=_blocks(kept.T, 1, inputs),
        shape=mask.shape,
        multiply=_multiply_block,
        differentiate=_differentiate_block)


def _groups(mask, row_stride, column_stride):
    """The ``Side`` of single weights; strides are those of a row and of a column in W."""
    rows, columns = np.nonzero(mask)
    counts = np.bincount(rows, minlength=len(mask))
    groups = -(-counts // SIDE)
    starts = _starts(groups)
    firsts = _starts(counts)
    # Each row's weights begin at its first group.
    within = np.arange(len(rows)) - firsts[rows]
    slots = starts[rows] * SIDE + within
    all_columns = np.zeros(starts[-1] * SIDE, np.int64)
    places = np.full(starts[-1] * SIDE, NO_PLACE, np.int64)
    all_columns[slots] = columns
    places[slots] = rows * row_stride + columns * column_stride
    return Side(starts, all_columns, places)


def _blocks(kept, row_stride, column_stride):
    """The ``Side`` of blocks ``kept (down, across) bool``."""
    rows, columns = np.nonzero(kept)
    starts = _starts(np.bincount(rows, minlength=len(kept)))
    places = SIDE * (rows * row_stride + columns * column_stride)
    return Side(starts, columns.astype(np.int64), places.astype(np.int64))


def _starts(counts):
    """int64 (n + 1,): where each of n runs of these lengths begins, and the end."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


KERNELS = {"single": single, "block": block}


# --- a layer's product, for autograd ---


class Product(torch.autograd.Function):
    """``product`` with its ``gradients``."""

    @staticmethod
    def forward(context, X, W, pattern):
        context.save_for_backward(X, W)
        context.pattern = pattern
        return product(pattern, X, W)

    @staticmethod
    def backward(context, dY):
        X, W = context.saved_tensors
        dX = torch.empty(X.shape) if context.needs_input_grad[0] else None
        return dX, gradients(context.pattern, X, W, dY, dX), None


def product(pattern, X, W, transposed=False):
    """``X W^T (..., outputs)`` of ``X (..., inputs)``; ``transposed``: X W, of ``X (..., outputs)``."""
    width, inputs = pattern.shape
    side, strides = pattern.by_rows, (inputs, 1)
    if transposed:
        width, side, strides = inputs, pattern.by_columns, (1, inputs)
    rows = _flat(X)
    Y = np.empty((len(rows), width), np.float32)
    pattern.multiply(*side, rows, _numbers(W), Y, strides)
    return torch.from_numpy(Y).view(*X.shape[:-1], width)


def gradients(pattern, X, W, dY, dX=None):
    """``dW (outputs, inputs)``, 0 off the mask; ``dX``, if there is one, is written in place."""
    inputs = pattern.shape[1]
    into = np.empty((0, inputs), np.float32) if dX is None else dX.view(-1, inputs).numpy()
    dW = np.zeros(pattern.shape, np.float32)
    pattern.differentiate(
        tuple(pattern.by_rows), tuple(pattern.by_columns), _flat(dY), _flat(X), _numbers(W), into,
        dW.reshape(-1), inputs)
    return torch.from_numpy(dW)


def _flat(tensor):
    """The tensor (..., width) as numpy's (n, width)."""
    return tensor.detach().reshape(-1, tensor.shape[-1]).contiguous().numpy()


def _numbers(W):
    """W as numpy's (outputs * inputs,)."""
    return W.detach().reshape(-1).numpy()


# --- compiled ---

# Inner loops are written out, over slices of constant length: of those alone the compiler makes
# vector instructions, and only variables of their own stay in registers.


@njit(fastmath=FAST, cache=True)
def _lay_out(x, first, columns):
    """Write TILE samples of ``x (B, width)`` column after column; 0 where there are none left."""
    n, width = x.shape
    most = min(TILE, n - first)
    for begin in range(0, width, 16):
        end = min(begin + 16, width)
        for sample in range(most):
            row = x[first + sample]
            for column in range(begin, end):
                columns[column * TILE + sample] = row[column]
        for column in range(begin, end):
            for sample in range(most, TILE):
                columns[column * TILE + sample] = 0


@njit(fastmath=FAST, cache=True)
def _lay_back(columns, first, y):
    """Write TILE samples, column after column, to the rows of ``y (B, width)``."""
    n, width = y.shape
    most = min(TILE, n - first)
    for begin in range(0, width, 16):
        end = min(begin + 16, width)
        for sample in range(most):
            row = y[first + sample]
            for column in range(begin, end):
                row[column] = columns[column * TILE + sample]


@njit(fastmath=FAST, cache=True)
def _multiply_block(starts, columns, places, x, W, y, strides):
    """Write the products of ``x`` to ``y``: blocks have these (row, column) strides in W."""
    packed = _packed_blocks(places, W, strides)
    inputs = np.empty(x.shape[1] * TILE, np.float32)
    outputs = np.empty(y.shape[1] * TILE, np.float32)
    for first in range(0, len(x), TILE):
        _lay_out(x, first, inputs)
        _add_up_blocks(starts, columns, packed, inputs, outputs)
        _lay_back(outputs, first, y)


@njit(fastmath=FAST, cache=True)
def _differentiate_block(by_rows, by_columns, dy, x, W, dx, dW, width):
    """Write the gradients to ``dx``, unless it is empty, and those of the kept weights to ``dW
    (outputs * width,)``."""
    transposed = _packed_blocks(by_columns[2], W, (1, width))
    slopes = np.zeros(len(by_rows[1]) * SIDE * SIDE, np.float32)
    inputs = np.empty(width * TILE, np.float32)
    outputs = np.empty(dy.shape[1] * TILE, np.float32)
    for first in range(0, len(x), TILE):
        _lay_out(dy, first, outputs)
        if len(dx):
            _add_up_blocks(by_columns[0], by_columns[1], transposed, outputs, inputs)
            _lay_back(inputs, first, dx)
        _lay_out(x, first, inputs)
        _add_up_slopes_of_blocks(by_rows[0], by_rows[1], inputs, outputs, slopes)
    places = by_rows[2]
    for number in range(len(places)):
        for row in range(SIDE):
            for column in range(SIDE):
                slope = slopes[(number * SIDE + row) * SIDE + column]
                dW[places[number] + row * width + column] = slope


@njit(fastmath=FAST, cache=True)
def _packed_blocks(places, W, strides):
    """The weights of all blocks, row by row of each."""
    packed = np.empty(len(places) * SIDE * SIDE, np.float32)
    for number in range(len(places)):
        for row in range(SIDE):
            for column in range(SIDE):
                place = places[number] + row * strides[0] + column * strides[1]
                packed[(number * SIDE + row) * SIDE + column] = W[place]
    return packed


@njit(fastmath=FAST, cache=True)
def _add_up_blocks(starts, columns, packed, inputs, outputs):
    """A tile of products. Two rows of a block at a time: their weights fit into registers."""
    for row in range(len(starts) - 1):
        sums = outputs[row * SIDE * TILE:(row + 1) * SIDE * TILE]
        sums[:] = 0
        for number in range(starts[row], starts[row + 1]):
            column = columns[number]
            x = inputs[column * SIDE * TILE:(column + 1) * SIDE * TILE]
            for pair in range(SIDE // 2):
                begin = number * SIDE * SIDE + pair * 2 * SIDE
                a = packed[begin:begin + 2 * SIDE]
                y = sums[pair * 2 * TILE:(pair + 1) * 2 * TILE]
                a0, a1, a2, a3, a4, a5, a6, a7 = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
                b0, b1, b2, b3 = a[8], a[9], a[10], a[11]
                b4, b5, b6, b7 = a[12], a[13], a[14], a[15]
                for j in range(TILE):
                    x0, x1, x2, x3 = x[j], x[TILE + j], x[2 * TILE + j], x[3 * TILE + j]
                    x4, x5 = x[4 * TILE + j], x[5 * TILE + j]
                    x6, x7 = x[6 * TILE + j], x[7 * TILE + j]
                    y[j] += (a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                             + a4 * x4 + a5 * x5 + a6 * x6 + a7 * x7)
                    y[TILE + j] += (b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                                    + b4 * x4 + b5 * x5 + b6 * x6 + b7 * x7)


@njit(fastmath=FAST, cache=True)
def _add_up_slopes_of_blocks(starts, columns, inputs, outputs, slopes):
    """Add a tile's part of the gradient. Four by four weights at a time: their sums fit into
    registers."""
    for row in range(len(starts) - 1):
        for number in range(starts[row], starts[row + 1]):
            for quarter in range(4):
                down, across = 4 * (quarter // 2), 4 * (quarter % 2)
                begin = (row * SIDE + down) * TILE
                y = outputs[begin:begin + 4 * TILE]
                begin = (columns[number] * SIDE + across) * TILE
                x = inputs[begin:begin + 4 * TILE]
                begin = (number * SIDE + down) * SIDE + across
                _add_slopes(y, x, slopes[begin:begin + 3 * SIDE + 4])


@njit(fastmath=FAST, cache=True)
def _add_slopes(y, x, slopes):
    """Add ``y x^T`` of four columns each to four rows of a block, SIDE numbers from row to row."""
    zero = np.float32(0)
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
    for j in range(TILE):
        y0, y1, y2, y3 = y[j], y[TILE + j], y[2 * TILE + j], y[3 * TILE + j]
        x0, x1, x2, x3 = x[j], x[TILE + j], x[2 * TILE + j], x[3 * TILE + j]
        s00 += y0 * x0
        s01 += y0 * x1
        s02 += y0 * x2
        s03 += y0 * x3
        s10 += y1 * x0
        s11 += y1 * x1
        s12 += y1 * x2
        s13 += y1 * x3
        s20 += y2 * x0
        s21 += y2 * x1
        s22 += y2 * x2
        s23 += y2 * x3
        s30 += y3 * x0
        s31 += y3 * x1
        s32 += y3 * x2
        s33 += y3 * x3
    sums = (s00, s01, s02, s03, s10, s11, s12, s13, s20, s21, s22, s23, s30, s31, s32, s33)
    for number in range(16):
        slopes[(number // 4) * SIDE + number % 4] += sums[number]


@njit(fastmath=FAST, cache=True)
def _multiply_single(starts, columns, places, x, W, y, strides):
    """As ``_multiply_block``, by groups of single weights; the strides are not needed."""
    packed = _packed_weights(places, W)
    inputs = np.empty(x.shape[1] * TILE, np.float32)
    outputs = np.empty(y.shape[1] * TILE, np.float32)
    for first in range(0, len(x), TILE):
        _lay_out(x, first, inputs)
        _add_up_groups(starts, columns, packed, inputs, outputs)
        _lay_back(outputs, first, y)


@njit(fastmath=FAST, cache=True)
def _differentiate_single(by_rows, by_columns, dy, x, W, dx, dW, width):
    """As ``_differentiate_block``, of single weights."""
    transposed = _packed_weights(by_columns[2], W)
    slopes = np.zeros(len(by_rows[1]), np.float32)
    inputs = np.empty(width * TILE, np.float32)
    outputs = np.empty(dy.shape[1] * TILE, np.float32)
    for first in range(0, len(x), TILE):
        _lay_out(dy, first, outputs)
        if len(dx):
            _add_up_groups(by_columns[0], by_columns[1], transposed, outputs, inputs)
            _lay_back(inputs, first, dx)
        _lay_out(x, first, inputs)
        _add_up_slopes_of_groups(by_rows[0], by_rows[1], inputs, outputs, slopes)
    places = by_rows[2]
    for number in range(len(places)):
        if places[number] != NO_PLACE:
            dW[places[number]] = slopes[number]


@njit(fastmath=FAST, cache=True)
def _packed_weights(places, W):
    """The weights at these places, 0 for NO_PLACE."""
    packed = np.zeros(len(places), np.float32)
    for number in range(len(places)):
        if places[number] != NO_PLACE:
            packed[number] = W[places[number]]
    return packed


@njit(fastmath=FAST, cache=True)
def _add_up_groups(starts, columns, packed, inputs, outputs):
    """A tile of products, SIDE weights of a row at a time."""
    for row in range(len(starts) - 1):
        y = outputs[row * TILE:(row + 1) * TILE]
        y[:] = 0
        for group in range(starts[row], starts[row + 1]):
            c = columns[group * SIDE:(group + 1) * SIDE]
            a = packed[group * SIDE:(group + 1) * SIDE]
            a0, a1, a2, a3, a4, a5, a6, a7 = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
            x0, x1 = inputs[c[0] * TILE:(c[0] + 1) * TILE], inputs[c[1] * TILE:(c[1] + 1) * TILE]
            x2, x3 = inputs[c[2] * TILE:(c[2] + 1) * TILE], inputs[c[3] * TILE:(c[3] + 1) * TILE]
            x4, x5 = inputs[c[4] * TILE:(c[4] + 1) * TILE], inputs[c[5] * TILE:(c[5] + 1) * TILE]
            x6, x7 = inputs[c[6] * TILE:(c[6] + 1) * TILE], inputs[c[7] * TILE:(c[7] + 1) * TILE]
            for j in range(TILE):
                y[j] += (a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j]
                         + a4 * x4[j] + a5 * x5[j] + a6 * x6[j] + a7 * x7[j])


@njit(fastmath=FAST, cache=True)
def _add_up_slopes_of_groups(starts, columns, inputs, outputs, slopes):
    """Add a tile's part of the gradient, SIDE weights of a row at a time."""
    zero = np.float32(0)
    for row in range(len(starts) - 1):
        y = outputs[row * TILE:(row + 1) * TILE]
        for group in range(starts[row], starts[row + 1]):
            c = columns[group * SIDE:(group + 1) * SIDE]
            x0, x1 = inputs[c[0] * TILE:(c[0] + 1) * TILE], inputs[c[1] * TILE:(c[1] + 1) * TILE]
            x2, x3 = inputs[c[2] * TILE:(c[2] + 1) * TILE], inputs[c[3] * TILE:(c[3] + 1) * TILE]
            x4, x5 = inputs[c[4] * TILE:(c[4] + 1) * TILE], inputs[c[5] * TILE:(c[5] + 1) * TILE]
            x6, x7 = inputs[c[6] * TILE:(c[6] + 1) * TILE], inputs[c[7] * TILE:(c[7] + 1) * TILE]
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zero
            for j in range(TILE):
                slope = y[j]
                s0 += slope * x0[j]
                s1 += slope * x1[j]
                s2 += slope * x2[j]
                s3 += slope * x3[j]
                s4 += slope * x4[j]
                s5 += slope * x5[j]
                s6 += slope * x6[j]
                s7 += slope * x7[j]
            sums = (s0, s1, s2, s3, s4, s5, s6, s7)
            for number in range(SIDE):
                slopes[group * SIDE + number] += sums[number]
