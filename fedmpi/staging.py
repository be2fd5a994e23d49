"""Kept values between the host, where messages are made, and the device, where models live.

On a GPU they pass through one page-locked buffer, allocated once: the driver copies from and to such memory directly,
without a buffer of its own in between, and only K values cross the bus. On the CPU nothing is staged.

Device buffers are not handed to MPI, though some MPI libraries take them. A message is one frame: positions coded
against the last mask, then values coded (float16, int8 ...), then a header with their sizes. All of that is made on the
host, is compressed there, and has to be there anyway, as the server merges on the CPU: the one copy over the bus that a
CUDA-aware MPI would save is a copy that rank 0 needs. It is also small beside training: at 25 GB/s a million float32
values take 0.2 ms. What would pay is a merge on GPUs with frames coded there, which is another engine.
"""

from typing import Callable, NamedTuple

import torch

from fedmpi.flat import gathered, scattered


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
