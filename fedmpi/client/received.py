"""A client's model before its training, as it came over the wire."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.core.allocator import LARGE, give_back
from fedmpi.core.errors import WireError
from fedmpi.core.support import Support, all_of, digest, is_one_entry, scattered
from fedmpi.wire import positions
from fedmpi.wire.chosen import for_model


class Received(NamedTuple):
    """A model as it came over the wire."""

    mask: torch.Tensor            # (Q,) bool
    support: torch.Tensor | Support       # (K,) positions
    digest: int                   # of the support
    base: torch.Tensor            # (P,) float32, 0 off the support; on the device
    device_mask: torch.Tensor     # the mask, on the device
    trainable: torch.Tensor       # (R,) float32 on the device: 1 if trained, 0 if pruned; read only


def decoded(home, codec, meta, arrays, last_mask=None, last=None, model_of=None, strategy=None):
    """``(Received, its mask as a numpy array)`` of a model message.

    With a ``strategy`` it is the message of a round, which may hold a part of the model.

    The mask may be told relative to ``last_mask (Q,) bool``. ``last``: the model received before.
    Its buffer is reused, and its mask too if it is the same one. ``model_of`` is the node's, see
    ``node_model``; None: the model is this rank's own. WireError unless both ends agree on the
    support.
    """
    layout = home.layout
    code, bits = meta["mask"], arrays["mask"]
    kept = positions.decode(code, bits, layout.Q, last_mask)
    same = last is not None and _is_last_mask(meta, kept, last)
    if same:
        mask, support, own_digest = last.mask, last.support, last.digest
    else:
        mask = _smallest(kept)
        # The array of this rank's own is free again if every weight is kept.
        kept = mask.numpy()
        support = layout.compact(mask)
        own_digest = digest(support)
    if own_digest != meta["support"]:
        raise WireError(f"the server's support is {meta['support']}, this worker decoded "
                        f"{own_digest}")
    down = codec.down
    if strategy is not None:
        down = for_model(down, strategy, layout, meta["t"], support)
    values_of = partial(down.decode, arrays, len(support))
    if _lies_in_message(home, arrays, support):
        base = values_of()
    elif _is_of_node(home, model_of):
        base = model_of(meta["t"], partial(_write, values_of, support, same))
    else:
        base = _own_base(home, values_of(), support, last, same)
    if same:
        return last._replace(base=base), kept
    received = placed(home, mask, support, own_digest, base)
    if layout.P >= LARGE:
        # Holes of masks before, which gradients would leave unfilled.
        give_back()
    return received, kept


def _smallest(kept):
    """(Q,) bool, read only: the mask ``kept``, numpy's.

    In little memory if it is large and keeps every weight; counting in it takes longer.
    """
    if len(kept) >= LARGE and kept.all():
        return all_of(True, len(kept))
    return torch.from_numpy(kept)


def _lies_in_message(home, arrays, support):
    """Whether a message holds the whole vector as it is, on the device."""
    on_host = home.device.type == "cpu"
    has_all = len(support) == home.layout.P
    values = arrays.get("values")
    if values is None or not (on_host and has_all):
        return False
    return values.dtype == np.float32


def _is_of_node(home, model_of):
    """Whether the node's ranks share a model: a large one, and on the host."""
    is_large = home.layout.P >= LARGE
    return model_of is not None and is_large and home.device.type == "cpu"


def _write(values_of, support, same, into):
    """Write the decoded values ``values_of() (K,)`` into a model (P,).

    ``same``: it holds values on the same support already.
    """
    if not same:
        into.zero_()
    scattered(values_of(), support, into)


def _own_base(home, values, support, last, same):
    """(P,) on the device: the decoded ``values (K,)`` on the support, 0 elsewhere.

    ``same``: the support is that of ``last``, the model received before.
    """
    if last is None:
        return home.stage.up(values, support)
    # A new buffer would cost as much as filling three.
    buffer = last.base
    if not same:
        # Else every position off the support is 0 already.
        buffer.zero_()
    return home.stage.up(values, support, buffer)


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
    if is_one_entry(mask):
        trainable = all_of(1.0, layout.R, device)
    else:
        # Biases and norms, behind the prunable weights, are always trained.
        trainable = torch.ones(layout.R, device=device)
        trainable[: layout.Q] = device_mask
    return Received(mask, support, digest, base, device_mask, trainable)
