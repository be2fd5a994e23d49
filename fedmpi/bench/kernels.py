"""The three products of a linear layer's training step, by dense and by sparse kernels.

    forward  Y = X W^T          dX = dY W          dW = dY^T X, at the kept weights

``X (B, inputs)`` and ``dY (B, outputs)`` come, and ``Y`` and ``dX`` leave, a sample a row. ``W`` is
a dense matrix, 0 off the mask, and the gradient is one: weights move in every step, so a sparse
kernel takes its values from W in each forward product and writes its gradient back. These copies
and all transpositions count.
"""

from typing import Callable, NamedTuple

import torch

# Samples that a sparse product takes at once: their columns of X stay in the caches.
TILE = 256
# Samples from which a gradient by rows of blocks is faster than one batched product.
BY_ROWS = 1024


class Kernel(NamedTuple):
    """The products of one layer. Backward ones follow a forward one and use its copies."""

    forward: Callable             # (X) -> Y
    backward_x: Callable          # (dY) -> dX
    backward_w: Callable          # (dY, X) -> dW (outputs, inputs)


def dense(W, mask):
    """Plain matrix products, whatever the mask."""
    return Kernel(
        lambda X: X @ W.T,
        lambda dY: dY @ W,
        lambda dY, X: dY.T @ X)


def masked(W, mask):
    """Dense products, with the mask multiplied onto the weights and their gradient."""
    kept = torch.empty_like(W)

    def forward(X):
        torch.mul(W, mask, out=kept)
        return X @ kept.T

    def backward_w(dY, X):
        gradient = dY.T @ X
        return gradient.mul_(mask)

    return Kernel(forward, lambda dY: dY @ kept, backward_w)


def bf16(W, mask):
    """Dense products of operands cast to bfloat16, results in float32."""
    weights = W.bfloat16()

    def forward(X):
        weights.copy_(W)
        return (X.bfloat16() @ weights.T).float()

    def backward_x(dY):
        return (dY.bfloat16() @ weights).float()

    def backward_w(dY, X):
        return (dY.bfloat16().T @ X.bfloat16()).float()

    return Kernel(forward, backward_x, backward_w)


def csr(W, mask):
    """Single kept weights, by torch's compressed rows (MKL on a CPU)."""
    places = torch.nonzero(mask.flatten()).flatten()
    matrix = (W * mask).to_sparse_csr()
    # The transposed matrix has the same values in another order.
    order = torch.zeros_like(W, dtype=torch.long)
    order.view(-1)[places] = torch.arange(len(places))
    by_columns = order.T[mask.T]
    transposed = (W * mask).T.contiguous().to_sparse_csr()
    gradient = torch.zeros_like(W)

    def forward(X):
        torch.index_select(W.view(-1), 0, places, out=matrix.values())
        return _by_tiles(matrix, X)

    def backward_x(dY):
        torch.index_select(matrix.values(), 0, by_columns, out=transposed.values())
        return _by_tiles(transposed, dY)

    def backward_w(dY, X):
        sampled = torch.sparse.sampled_addmm(matrix, dY.T, X, beta=0.0)
        gradient.view(-1)[places] = sampled.values()
        return gradient

    return Kernel(forward, backward_x, backward_w)


def bsr(W, mask, size):
    """Kept blocks of ``size`` x ``size``, by torch's compressed rows of blocks (MKL on a CPU).

    dW: the blocks' rows of dY and columns of X, gathered, in one batched product; in large batches
    a dense product for each row of blocks."""
    down, across = W.shape[0] // size, W.shape[1] // size
    tiles = _tiles(W, size)
    kept = _tiles(mask, size)[:, :, 0, 0]
    rows, columns = torch.nonzero(kept, as_tuple=True)
    matrix = (W * mask).to_sparse_bsr((size, size))
    transposed = (W * mask).T.contiguous().to_sparse_bsr((size, size))
    # The transposed matrix has the same blocks in another order, each transposed.
    order = torch.zeros(down, across, dtype=torch.long)
    order[rows, columns] = torch.arange(len(rows))
    by_columns = order.T[kept.T]
    gradient = torch.zeros_like(W)
    starts = matrix.crow_indices().tolist()

    def forward(X):
        matrix.values().copy_(tiles[rows, columns])
        return _by_tiles(matrix, X)

    def backward_x(dY):
        transposed.values().copy_(matrix.values()[by_columns].transpose(1, 2))
        return _by_tiles(transposed, dY)

    def backward_w(dY, X):
        outputs = dY.T.contiguous()
        inputs = X.T.contiguous().view(across, size, -1)
        if len(X) < BY_ROWS:
            left = outputs.view(down, size, -1)[rows]
            right = inputs[columns].transpose(1, 2)
            _tiles(gradient, size)[rows, columns] = torch.bmm(left, right)
            return gradient
        for row in range(down):
            chosen = columns[starts[row]:starts[row + 1]]
            right = inputs[chosen].view(-1, len(X))
            of_row = slice(row * size, row * size + size)
            product = outputs[of_row] @ right.T
            blocks_of_row = gradient[of_row].view(size, across, size)
            blocks_of_row[:, chosen] = product.view(size, -1, size)
        return gradient

    return Kernel(forward, backward_x, backward_w)


def own(W, mask, name):
    """A kernel of ``fedmpi.compute.sparse_products``. dX and dW each lay out dY, as one step would
    not."""
    from fedmpi.compute import sparse_products
    pattern = sparse_products.KERNELS[name](mask.numpy())
    return Kernel(
        lambda X: sparse_products.product(pattern, X, W),
        lambda dY: sparse_products.product(pattern, dY, W, transposed=True),
        lambda dY, X: sparse_products.gradients(pattern, X, W, dY))


def _tiles(matrix, size):
    """A view (down, across, size, size) of a matrix in blocks."""
    down, across = matrix.shape[0] // size, matrix.shape[1] // size
    return matrix.view(down, size, across, size).transpose(1, 2)


def _by_tiles(matrix, X):
    """``X matrix^T (B, outputs)``, TILE samples at a time."""
    parts = []
    for samples in X.split(TILE):
        product = matrix @ samples.T.contiguous()
        parts.append(product.T)
    return torch.cat(parts).contiguous()


def half(W, mask):
    """Dense products in float16, on a GPU."""
    return dense(W.half(), mask)


def two_of_four(W, mask):
    """2:4 forward in float16 by the GPU's sparse units, dense backward products.

    The weights are packed in each forward product: they have moved."""
    from torch.sparse import to_sparse_semi_structured
    weights = (W * mask).half()

    def forward(X):
        packed = to_sparse_semi_structured(weights)
        return torch.nn.functional.linear(X, packed)

    return Kernel(
        forward,
        lambda dY: dY @ weights,
        lambda dY, X: dY.T @ X)
