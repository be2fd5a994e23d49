"""Named arrays of a message by their ``Field``: from tensors to what travels, and back.

An array of the name ``control`` under the prefix ``answer/`` travels as ``answer/control``, and one that passes through
a codec as ``answer/control/values`` and whatever else the codec makes of it. What a field has ``on="support"`` travels
as its values (K,) on the support, at both ends of which it is a vector (P,).
"""

import torch

from fedmpi.core.errors import WireError
from fedmpi.core.support import gathered


def encoded(fields, tensors, prefix, codec, support):
    """``{name on the wire: numpy array}`` of ``tensors``, ``{name: tensor}``, on the host. ValueError for a tensor
    that does not fit its field, or that has none; a missing one is sent as zeros where its size is known."""
    strange = sorted(tensors.keys() - fields.keys())
    if strange:
        raise ValueError(f"{', '.join(strange)} is not among the declared fields {', '.join(fields) or '(none)'}")
    arrays = {}
    for name, field in fields.items():
        values = values_of(name, field, tensors.get(name), support)
        if not field.coded:
            arrays[prefix + name] = values.cpu().numpy()
            continue
        for key, array in codec.encode(values.cpu()).items():
            arrays[f"{prefix}{name}/{key}"] = array
    return arrays


def values_of(name, field, tensor, support):
    """What travels of a ``tensor``: (K,) of a field on the ``support (K,)``, else the tensor itself."""
    if tensor is None:
        return zeros(name, field, len(support))
    if field.on == "any":
        return tensor.contiguous()
    if field.on == "support":
        if tensor.ndim != 1 or len(support) and len(tensor) <= int(support[-1]):
            raise ValueError(f"{name} is on the support: expected a vector of the model's length, got shape "
                             f"{tuple(tensor.shape)}")
        return gathered(tensor, support.to(tensor.device))
    if tuple(tensor.shape) != tuple(field.on):
        raise ValueError(f"{name} must have shape {tuple(field.on)}, got {tuple(tensor.shape)}")
    return tensor.contiguous()


def zeros(name, field, K):
    """What stands for an array that nobody made."""
    if field.on == "any":
        raise ValueError(f"{name} may have any shape, so that no zeros can stand for it: give it")
    return torch.zeros(K if field.on == "support" else field.on)


def decoded(fields, arrays, prefix, codec, K):
    """``{name: tensor}`` of what ``encoded`` made, on the host: (K,) of a field on the support. The tensors may share
    memory with ``arrays``."""
    found = {}
    for name, field in fields.items():
        if not field.coded:
            found[name] = torch.from_numpy(_of(arrays, prefix + name))
            continue
        start = f"{prefix}{name}/"
        coded = {key.removeprefix(start): array for key, array in arrays.items() if key.startswith(start)}
        if not coded:
            raise WireError(f"the message has no {prefix}{name}")
        found[name] = codec.decode(coded, K)
    for name, tensor in found.items():
        _check(prefix + name, fields[name], tensor, K)
    return found


def _of(arrays, name):
    if name not in arrays:
        raise WireError(f"the message has no {name}")
    return arrays[name]


def _check(name, field, tensor, K):
    """WireError where a tensor that came does not have the size of its field."""
    expected = {"support": (K,), "any": tuple(tensor.shape)}.get(field.on, field.on)
    if tuple(tensor.shape) != tuple(expected):
        raise WireError(f"{name} came with shape {tuple(tensor.shape)}, expected {tuple(expected)}")
