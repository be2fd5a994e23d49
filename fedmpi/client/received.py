"""The model that a client trains, as it came over the wire."""

import zlib
from typing import NamedTuple

import torch

from fedmpi.core.errors import WireError
from fedmpi.wire import positions


class Received(NamedTuple):
    """A model as it came over the wire."""

    mask: torch.Tensor            # (Q,) bool
    support: torch.Tensor         # (K,) int32
    digest: int                   # of the support
    base: torch.Tensor            # (P,) float32, 0 off the support; on the device
    there: torch.Tensor           # the mask, on the device
    live: torch.Tensor            # (R,) float32, there: 1 for what is trained, 0 for pruned weights


def digest(support):
    """A number that changes with the support, for both ends to compare. It is found once a support, as nobody writes to
    one."""
    if not hasattr(support, "digest"):
        support.digest = zlib.crc32(support.numpy())
    return support.digest


def decoded(home, codec, meta, arrays, known=None, last=None):
    """``(Received, its mask as numpy's)`` of a model message, whose mask is told relative to ``known (Q,)``.

    ``last`` is the model received before: its buffer is written again, and its mask stays where the message says that
    it is the same."""
    layout = home.layout
    same = last if "same" in meta["mask"] else None
    kept = positions.decode(meta["mask"], arrays["mask"], layout.Q, known)
    mask = same.mask if same else torch.from_numpy(kept)
    support = same.support if same else layout.support(mask)
    found = same.digest if same else digest(support)
    if found != meta["support"]:
        raise WireError(f"the server's support is {meta['support']}, this worker decoded {found}")
    values = codec.down.decode(arrays, len(support))
    base = home.stage.up(values, support, _buffer(same, last))
    if same:
        return same._replace(base=base), kept
    return placed(home, mask, support, found, base), kept


def placed(home, mask, support, digest, base):
    """The ``Received`` of a model ``base (P,)`` on the device, 0 off the ``support`` of ``mask (Q,)``."""
    there = mask.to(home.device)
    live = torch.ones(home.layout.R, device=home.device)
    live[: home.layout.Q] = there
    return Received(mask, support, digest, base, there, live)


def _buffer(same, last):
    """(P,), 0 off the new support, to be written to; None where there is none yet."""
    if same:
        return same.base
    # A new buffer would cost as much as filling three.
    return last.base.zero_() if last else None
