"""Kept values between the host, where messages are made, and the device, where models live; and the samples, which a
GPU keeps where they are small beside it.

On a GPU kept values pass through one page-locked buffer, allocated once: the driver copies from and to such memory
directly, without a buffer of its own in between, and only K values cross the bus. On the CPU nothing is staged.

Device buffers are not handed to MPI, though some MPI libraries take them. A message is one frame: positions coded
against the last mask, then values coded (float16, int8 ...), then a header with their sizes. All of that is made on the
host, is compressed there, and has to be there anyway, as the server merges on the CPU: the one copy over the bus that a
CUDA-aware MPI would save is a copy that rank 0 needs. It is also small beside training: at 25 GB/s a million float32
values take 0.2 ms. What would pay is a merge on GPUs with frames coded there, which is another engine.
"""

from typing import Callable, NamedTuple

import numpy as np
import torch

from fedmpi.core.support import gathered, scattered


PART = 1 / 128       # of a GPU's free memory that samples may take to stay there: all ranks on it take as much
PIECE = 1 << 26      # bytes of samples that are copied at a time


class Resident(NamedTuple):
    """What clients train on, on a GPU: what the node's ranks share on the host, moved once."""

    x_train: torch.Tensor
    indices: torch.Tensor
    labels: torch.Tensor


def resident(data, device):
    """The ``Resident`` of a worker's shared ``data``; None where they are not to stay on the device: on the CPU, and
    where they would take too much of a GPU."""
    if device.type != "cuda":
        return None
    arrays = [data[name] for name in Resident._fields]
    if sum(array.nbytes for array in arrays) > PART * torch.cuda.mem_get_info(device)[0]:
        return None
    return Resident(*(_moved(array, device) for array in arrays))


def _moved(array, device):
    """The array on the device, by pieces, as it may be read-only, which torch takes none of."""
    into = torch.empty(array.shape, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype, device=device)
    rows = max(1, PIECE // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        into[start: start + rows] = torch.from_numpy(array[start: start + rows].copy())
    return into


class Staging(NamedTuple):
    """``up(values (K,), support, into=None) -> (P,)`` on the device, 0 off the support: written into ``into (P,)``
    where that is 0 off the support already; ``difference(x, base, support) -> (K,)`` on the device: x - base on the
    support; ``down(values (K,)) -> (K,)`` on the host, in memory that the next call writes again where it ``reuses``
    it."""

    up: Callable
    difference: Callable
    down: Callable
    reuses: bool


def staging(P, device, pinned=None):
    """The ``Staging`` of a rank for vectors of length P; ``pinned`` says whether to stage, by default off the CPU only.
    Supports are on the host. The same bits either way."""
    if not (device.type != "cpu" if pinned is None else pinned):
        return Staging(lambda values, support, into=None: _spread(values, support, P, into), _difference,
                       lambda values: values, False)
    buffer = torch.empty(P, pin_memory=True)
    placed = [None, None]                         # the last support, and itself on the device

    def there(support):
        if placed[0] is not support:
            placed[:] = support, support.to(device)
        return placed[1]

    def up(values, support, into=None):
        staged = buffer[: len(values)].copy_(values)
        return _spread(staged.to(device), there(support), P, into)

    def difference(x, base, support):
        return _difference(x, base, there(support))

    def down(values):
        return buffer[: len(values)].copy_(values)

    return Staging(up, difference, down, True)


def _difference(x, base, support):
    """(K,): x - base on the support; two gathers cost a third of subtracting all."""
    return gathered(x, support) - gathered(base, support)


def _spread(values, support, P, into):
    """(P,): ``values`` at the positions ``support``, 0 elsewhere, on their device."""
    return scattered(values, support, torch.zeros(P, device=values.device) if into is None else into)
