"""Named arrays of a message, by their ``Field``: from tensors to arrays on the wire, and back.

An array of the name ``control`` under the prefix ``answer/`` travels as ``answer/control``; through
a codec, as ``answer/control/values`` and the codec's further arrays. A field with ``on="support"``
is a vector (P,) at both ends, and travels as its values (K,) on the support.
"""

import torch

from fedmpi.core.errors import WireError
from fedmpi.core.support import below, gathered


def encoded(fields, tensors, prefix, codec, support):
    """``{name on the wire: numpy array}`` of ``{name: tensor}``, on the host.

    A missing tensor is sent as zeros if its field has a size. ValueError for a tensor without a
    field, or unlike its field.
    """
    _check_declared(fields, tensors)
    arrays = {}
    for name, field in fields.items():
        tensor = tensors.get(name)
        values = values_of(name, field, tensor, support).cpu()
        start = prefix + name
        if not field.coded:
            arrays[start] = values.numpy()
            continue
        for key, array in codec.encode(values).items():
            arrays[f"{start}/{key}"] = array
    return arrays


def _check_declared(fields, tensors):
    """ValueError for tensors without a field."""
    undeclared = sorted(tensors.keys() - fields.keys())
    if undeclared:
        names = ", ".join(undeclared)
        declared = ", ".join(fields) or "(none)"
        raise ValueError(f"{names} is not among the declared fields {declared}")


def values_of(name, field, tensor, support):
    """The travelling part of a ``tensor``.

    (K,) for a field on the ``support (K,)``, else the tensor itself.
    """
    if tensor is None:
        return zeros(name, field, len(support))
    if field.on == "any":
        return tensor.contiguous()
    shape = tuple(tensor.shape)
    if field.on == "support":
        if tensor.ndim != 1 or _is_short(tensor, support):
            raise ValueError(f"{name} is on the support: expected a vector of the model's length, "
                             f"got shape {shape}")
        return gathered(tensor, support.to(tensor.device))
    expected = tuple(field.on)
    if shape != expected:
        raise ValueError(f"{name} must have shape {expected}, got {shape}")
    return tensor.contiguous()


def _is_short(tensor, support):
    """Whether the last position of the sorted support lies behind the tensor's end."""
    return below(support, len(tensor)) < len(support)


def zeros(name, field, K):
    """Zeros in place of a missing array. ValueError for a field of any shape."""
    if field.on == "any":
        raise ValueError(f"{name} may have any shape, so that no zeros can stand for it: give it")
    if field.on == "support":
        return torch.zeros(K)
    return torch.zeros(field.on)


def decoded(fields, arrays, prefix, codec, K):
    """``{name: tensor}`` from the arrays of ``encoded``, on the host.

    (K,) for a field on the support. The tensors may share memory with ``arrays``. WireError for a
    missing array, or one of the wrong size.
    """
    tensors = {}
    for name, field in fields.items():
        start = prefix + name
        if field.coded:
            tensor = _decoded_one(arrays, start, codec, K)
        else:
            array = _array(arrays, start)
            tensor = torch.from_numpy(array)
        _check(start, field, tensor, K)
        tensors[name] = tensor
    return tensors


def _decoded_one(arrays, name, codec, K):
    start = f"{name}/"
    # The codec's own names of its arrays.
    coded = {}
    for key, array in arrays.items():
        if key.startswith(start):
            own_name = key.removeprefix(start)
            coded[own_name] = array
    if not coded:
        raise WireError(f"the message has no {name}")
    return codec.decode(coded, K)


def _array(arrays, name):
    if name not in arrays:
        raise WireError(f"the message has no {name}")
    return arrays[name]


def _check(name, field, tensor, K):
    """WireError if a received tensor does not have its field's size."""
    if field.on == "any":
        return
    expected = tuple(field.on)
    if field.on == "support":
        expected = (K,)
    shape = tuple(tensor.shape)
    if shape != expected:
        raise WireError(f"{name} came with shape {shape}, expected {expected}")
