"""A client's model before its training, as it came over the wire."""

import zlib
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.core.errors import WireError
from fedmpi.wire import positions
from fedmpi.wire.chosen import for_model


class Received(NamedTuple):
    """A model as it came over the wire."""

    mask: torch.Tensor            # (Q,) bool
    support: torch.Tensor         # (K,) int32
    digest: int                   # of the support
    base: torch.Tensor            # (P,) float32, 0 off the support; on the device
    device_mask: torch.Tensor     # the mask, on the device
    trainable: torch.Tensor       # (R,) float32 on the device: 1 if trained, 0 if pruned


def digest(support):
    """A checksum of the ``support (K,)``, for both ends to compare."""
    # No code writes to a support, so that its checksum may stay with it.
    if not hasattr(support, "digest"):
        support.digest = zlib.crc32(support.numpy())
    return support.digest


def decoded(home, codec, meta, arrays, last_mask=None, last=None, strategy=None):
    """``(Received, its mask as a numpy array)`` of a model message.

    With a ``strategy`` it is the message of a round, which may hold a part of the model.

    The mask may be told relative to ``last_mask (Q,) bool``. ``last``: the model received before.
    Its buffer is reused, and its mask too if it is the same one. WireError unless both ends agree
    on the support.
    """
    layout = home.layout
    code, bits = meta["mask"], arrays["mask"]
    kept = positions.decode(code, bits, layout.Q, last_mask)
    same = last is not None and _is_last_mask(meta, kept, last)
    if same:
        mask, support, own_digest = last.mask, last.support, last.digest
    else:
        mask = torch.from_numpy(kept)
        support = layout.support(mask)
        own_digest = digest(support)
    if own_digest != meta["support"]:
        raise WireError(f"the server's support is {meta['support']}, this worker decoded "
                        f"{own_digest}")
    down = codec.down
    if strategy is not None:
        down = for_model(down, strategy, layout, meta["t"], support)
    values = down.decode(arrays, len(support))
    if same:
        # Every position off the support is 0 already.
        base = home.stage.up(values, support, last.base)
        return last._replace(base=base), kept
    buffer = None
    if last is not None:
        # A new buffer would cost as much as filling three.
        buffer = last.base.zero_()
    base = home.stage.up(values, support, buffer)
    received = placed(home, mask, support, own_digest, base)
    return received, kept


def _is_last_mask(meta, kept, last):
    """Whether a message's mask ``kept (Q,)`` is the mask of the model received before."""
    if "same" in meta["mask"]:
        return True
    # Comparing takes a tenth of the time of finding the support again.
    last_kept = last.mask.numpy()
    return np.array_equal(kept, last_kept)


def placed(home, mask, support, digest, base):
    """The ``Received`` of a model ``base (P,)`` on the device, 0 off ``mask (Q,)``."""
    device, layout = home.device, home.layout
    device_mask = mask.to(device)
    # Biases and norms, behind the prunable weights, are always trained.
    trainable = torch.ones(layout.R, device=device)
    trainable[: layout.Q] = device_mask
    return Received(mask, support, digest, base, device_mask, trainable)
