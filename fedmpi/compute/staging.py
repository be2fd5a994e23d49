"""Kept values between the host with its messages and the device with its models.

On a GPU kept values pass through one page-locked buffer, allocated once: the driver copies from
and to such memory directly, without a buffer of its own in between, and only K values cross the
bus. On the CPU nothing is staged. Samples stay on a GPU if they are small beside its memory.

Device buffers are not handed to MPI, though some MPI libraries take them. A message is one frame:
positions coded against the last mask, then coded values (float16, int8 ...), then a header with
their sizes. All of it is made and compressed on the host, and has to be there anyway, as the
server merges on the CPU. A CUDA-aware MPI would save one copy over the bus, and rank 0 needs this
copy. It is also small beside training: at 25 GB/s a million float32 values take 0.2 ms.
Merges on GPUs with frames coded there would pay; they would be another engine.
"""

from functools import partial
from typing import Callable, NamedTuple

import numpy as np
import torch

from fedmpi.core.support import gathered, scattered

# Of a GPU's free memory, for samples that stay there: all ranks on it take as much.
PART = 1 / 128
# Bytes of samples that are copied at a time.
PIECE = 1 << 26


class Resident(NamedTuple):
    """The clients' samples on a GPU: the arrays that a node's ranks share, moved once."""

    x_train: torch.Tensor
    indices: torch.Tensor
    labels: torch.Tensor


def resident(data, device):
    """The ``Resident`` of a worker's shared ``data``.

    None on the CPU, and if the arrays would take too much of a GPU.
    """
    if device.type != "cuda":
        return None
    arrays = [data[name] for name in Resident._fields]
    num_bytes = sum(array.nbytes for array in arrays)
    free, _ = torch.cuda.mem_get_info(device)
    if num_bytes > PART * free:
        return None
    moved = [_moved(array, device) for array in arrays]
    return Resident(*moved)


def _moved(array, device):
    """The array on the device, moved piece by piece."""
    # Torch has no function from numpy's types to its own.
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    moved = torch.empty(array.shape, dtype=dtype, device=device)
    row_bytes = max(1, array[:1].nbytes)
    rows = max(1, PIECE // row_bytes)
    for start in range(0, len(array), rows):
        rows_now = slice(start, start + rows)
        # Copy: the array may be read-only, and torch takes no such array.
        piece = array[rows_now].copy()
        moved[rows_now] = torch.from_numpy(piece)
    return moved


class Staging(NamedTuple):
    """The ways of kept values between host and device.

    ``up(values (K,), support, into=None) -> (P,)`` on the device, 0 off the support; it writes
    into ``into (P,)``, which must be 0 off the support already. ``difference(x, base, support,
    into=None) -> (K,)`` on the device: x - base on the support, written into ``into (K,)`` if that
    is given and K is P. ``down(values (K,)) -> (K,)`` on the host;
    ``reuses``: in memory that the next call overwrites.
    """

    up: Callable
    difference: Callable
    down: Callable
    reuses: bool


def staging(P, device, pinned=None):
    """The ``Staging`` of a rank for vectors of length P; the same bits staged or not.

    ``pinned`` says whether to stage, by default off the CPU only. Supports are on the host.
    """
    if pinned is None:
        pinned = device.type != "cpu"
    if pinned:
        return _staged(P, device)
    return _direct(P)


def _direct(P):
    """The ``Staging`` of a rank whose models live on the host."""
    def up(values, support, into=None):
        return _spread(values, support, P, into)

    def down(values):
        return values

    return Staging(up, _difference, down, reuses=False)


def _staged(P, device):
    """The ``Staging`` by a page-locked buffer."""
    buffer = torch.empty(P, pin_memory=True)
    on_device = partial(_on_device, device, [None, None])

    def up(values, support, into=None):
        staged = buffer[: len(values)].copy_(values)
        values = staged.to(device)
        support = on_device(support)
        return _spread(values, support, P, into)

    def difference(x, base, support, into=None):
        support = on_device(support)
        return _difference(x, base, support, into)

    def down(values):
        return buffer[: len(values)].copy_(values)

    return Staging(up, difference, down, reuses=True)


def _on_device(device, last, support):
    """The support on the device; ``last`` holds the last support and its copy."""
    if last[0] is not support:
        last[:] = support, support.to(device)
    return last[1]


def _difference(x, base, support, into=None):
    """(K,): x - base on the support, written into ``into (K,)`` if possible."""
    if into is not None and len(support) == len(x):
        return torch.sub(x, base, out=into)
    # Two gathers cost a third of subtracting all.
    return gathered(x, support) - gathered(base, support)


def _spread(values, support, P, into):
    """(P,): ``values`` at the positions ``support``, 0 elsewhere, on their device."""
    if into is None:
        into = torch.zeros(P, device=values.device)
    return scattered(values, support, into)
