"""A nested state of mixed types as a list of entries for JSON and a list of arrays; and back, bit for bit."""

import re
import struct
import sys

import numpy as np


def check_save(round, keep):
    if round < 0 or keep < 1:
        raise ValueError(f"a checkpoint needs round >= 0 and keep >= 1, got round {round} and keep {keep}")


def flattened(state):
    """``(entries, arrays)``: each leaf's description, for JSON, and its numbers (None for a plain value).

    The arrays may share memory with the leaves."""
    if not isinstance(state, dict):
        raise ValueError(f"a state must be a dict, got {type(state).__name__}")
    entries, arrays = [], []
    for path, leaf in _leaves(state, ()):
        entry, array = _entry(path, leaf)
        entries.append(entry)
        arrays.append(array)
    return entries, arrays


def _leaves(tree, path):
    for key, leaf in tree.items():
        if type(key) not in (str, int):
            raise ValueError(f"a key of a state must be a str or an int, got {key!r} at {_at(path)}")
        if isinstance(leaf, dict) and leaf:
            yield from _leaves(leaf, (*path, key))
        else:
            yield (*path, key), leaf


def _at(path):
    return "/".join(map(str, path)) or "the top"


def _entry(path, leaf):
    entry = dict(path=list(path))
    # Without torch in memory there are no tensors, and nothing else here needs it.
    torch = sys.modules.get("torch")
    if torch and isinstance(leaf, torch.Tensor):
        return _tensor_entry(entry, leaf, torch)
    if isinstance(leaf, (np.ndarray, np.generic)):
        return _array_entry(entry, leaf)
    if isinstance(leaf, float):
        # As bits: JSON has neither NaN nor infinity.
        bits = struct.pack("<d", leaf).hex()
        return {**entry, "kind": "float", "value": bits}, None
    if leaf is None or isinstance(leaf, (bool, int, str)):
        return {**entry, "kind": "plain", "value": leaf}, None
    # ``_leaves`` gives dicts only if they are empty.
    if isinstance(leaf, dict):
        return {**entry, "kind": "plain", "value": {}}, None
    raise ValueError(f"a state cannot hold a {type(leaf).__name__} (at {_at(path)})")


def _tensor_entry(entry, tensor, torch):
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"a state can hold dense tensors only (at {_at(entry['path'])})")
    resolved = tensor.detach().resolve_conj().resolve_neg()
    flat = resolved.cpu().contiguous().reshape(-1)
    raw = flat.view(torch.uint8).numpy()
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = list(tensor.shape)
    entry |= dict(kind="tensor", dtype=dtype, shape=shape)
    return entry, _stored(raw, dtype, shape)


def _array_entry(entry, leaf):
    array = np.asarray(leaf)
    if array.dtype.hasobject or array.dtype.fields or not array.dtype.itemsize:
        raise ValueError(f"a state cannot hold an array of dtype {array.dtype} (at {_at(entry['path'])})")
    kind = "scalar"
    if isinstance(leaf, np.ndarray):
        kind = "array"
    dtype = array.dtype.str
    shape = list(array.shape)
    entry |= dict(kind=kind, dtype=dtype, shape=shape)
    raw = np.ravel(array).view(np.uint8)
    return entry, _stored(raw, dtype, shape)


def _stored(raw, dtype, shape):
    """The bytes ``raw (n,) uint8`` for HDF5: with dtype and shape if HDF5 has the dtype, else as they are."""
    if dtype == "bfloat16":
        return raw.view(np.uint16).reshape(shape or 1)
    if re.fullmatch(r"[<>|][iuf][1248]|u?int\d+|float(16|32|64)", dtype):
        return raw.view(dtype).reshape(shape or 1)
    return raw


def unflattened(entries, arrays):
    """The state taken apart by ``flattened``; it may share memory with ``arrays``."""
    state = {}
    for entry, array in zip(entries, arrays):
        *folders, name = entry["path"]
        here = state
        for folder in folders:
            here = here.setdefault(folder, {})
        here[name] = _leaf(entry, array)
    return state


def _leaf(entry, array):
    if entry["kind"] == "plain":
        return entry["value"]
    if entry["kind"] == "float":
        return struct.unpack("<d", bytes.fromhex(entry["value"]))[0]
    raw = array.reshape(-1).view(np.uint8)
    if entry["kind"] == "tensor":
        import torch

        dtype = getattr(torch, entry["dtype"])
        return torch.from_numpy(raw).view(dtype).reshape(entry["shape"])
    leaf = raw.view(entry["dtype"]).reshape(entry["shape"])
    if entry["kind"] == "scalar":
        return leaf[()]
    return leaf
