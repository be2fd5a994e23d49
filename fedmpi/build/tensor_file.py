"""Safetensors files: of ``fedmpi export-model``, and any others."""

import json
import os

import numpy as np
import torch

from fedmpi.core.errors import UserError

# Entries of ``about`` that are plain texts in the file; all others are JSON.
PLAIN_TEXTS = ("form", "model", "run_id", "headline")


def is_own(metadata):
    """Whether ``export-model`` wrote the file of this ``metadata``."""
    return "shapes" in metadata


def plain(tensors, metadata):
    """``({name: tensor}, about)``: the model of a file, whoever wrote it, zeros in place."""
    if not is_own(metadata):
        return tensors, {}
    state, _, about = unpacked(tensors, metadata)
    return state, about


def unpacked(tensors, metadata):
    """``(state, masks, about)`` of the tensors of a file of ``export-model``, dense or sparse."""
    tensors = dict(tensors)
    about = {name: _value(name, text) for name, text in metadata.items() if name != "format"}
    form = about.pop("form")
    masks = {}
    shapes = about.pop("shapes")
    for name, shape in shapes.items():
        stored = tensors.pop(f"{name}.mask")
        masks[name] = _mask(stored, shape)
    # The values of pruned weights are not stored: zeros take their places.
    if form == "sparse":
        for name, mask in masks.items():
            values = tensors.pop(f"{name}.values")
            weights = torch.zeros(mask.shape)
            tensors[name] = weights.masked_scatter_(mask, values)
    return tensors, masks, about


def read(path):
    """``({name: tensor}, {name: text})``; UserError in one line if there is no such file."""
    from safetensors import SafetensorError, safe_open
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file ({one_line(error)})") from error
    return tensors, metadata


def _value(name, text):
    return text if name in PLAIN_TEXTS else json.loads(text)


def _mask(stored, shape):
    """The bool mask, as a dense file stores it; a sparse one stores a bit a weight."""
    if stored.dtype == torch.bool:
        return stored
    size = int(np.prod(shape))
    packed = stored.numpy()
    bits = np.unpackbits(packed, count=size)
    flags = bits.astype(bool)
    return torch.from_numpy(flags).view(shape)


def one_line(error):
    """The text of an error in one line."""
    return " ".join(str(error).split())
