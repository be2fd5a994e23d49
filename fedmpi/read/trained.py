"""The trained model of a run: taken from a checkpoint, written as safetensors, read again.

A file holds each tensor of the torch state dict under its name, and the mask of each prunable one
under NAME.mask:

* dense: NAME with zeros in place, NAME.mask bool of the same shape;
* sparse: of a prunable tensor NAME.values (K,) float32, its kept weights in C order, and NAME.mask
  (ceil(size / 8),) uint8, a bit a weight in C order, the first in the highest bit (numpy.packbits);
  its shape is in the metadata ``shapes``.

A kept weight may be zero, as one that has just grown is; hence masks, not the places of zeros.
"""

import json
import os
from typing import NamedTuple

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.read.headline import headline
from fedmpi.build.parts import network_of
from fedmpi.methods.datasets.dataset import inputs_record
from fedmpi.core.errors import CheckpointError, DiskError, UserError
from fedmpi.compute.several import laid_out
from fedmpi.core.layout import bind
from fedmpi.core.flops import costs
from fedmpi.server.model import counted, served
from fedmpi.store import checkpoint_folder, load_checkpoint, read_run
from fedmpi.core.tensors import fixed


class Trained(NamedTuple):
    """A model: ``state`` is the torch state dict, zeros in place, ``masks`` {name: bool, the
    weight's shape} of what can be pruned, ``about`` a dict of texts and numbers: model, options,
    round, headline (the name of a metric, which stands under it: accuracy, say), loss, sparsity,
    inputs, run_id, ``uses`` of a weight for one sample, {name: float}, ``flops_other`` of one
    sample's forward pass that no mask thins out, and the names of ``tied`` tensors, which stand in
    ``state`` under another name too."""

    state: dict
    masks: dict
    about: dict

    @property
    def sparsity(self):
        """Fraction of zeros among the prunable weights."""
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / sum(m.numel() for m in self.masks.values())


def trained(path, round=None, warn=lambda line: None):
    """The ``Trained`` model after ``round`` of the run file ``path``, by default of its newest
    checkpoint: what the run evaluated, to the bit. ``about`` has the headline and loss that the run
    recorded, None where none were."""
    run = read_run(path, {"rounds"}, 2.0)
    folder = checkpoint_folder(path)
    try:
        state, done = load_checkpoint(folder, run_id=run.attrs["run_id"], warn=warn, round=round)
    except CheckpointError as error:
        raise UserError(f"{path}: {error}. Models are taken from checkpoints; train --keep N keeps more") from error
    options, inputs = run.attrs["options"], _inputs(run.attrs)
    network = network_of(options)(inputs["shape"], inputs.get("outputs", inputs["classes"]))
    floating = [name for name, buffer in network.named_buffers() if buffer.is_floating_point()]
    # Runs from before statistics were recorded have all floating-point buffers in the vector.
    layout, x, _ = bind(network, run.attrs.get("statistics", floating))
    if layout.digest != run.attrs["layout_digest"]:
        raise UserError(f"{path} holds a model of other shapes than --model {options['model']} makes here; was the "
                        "model's code changed?")
    if run.attrs.get("fixed_digest", "") != (fixed(network, layout).digest if "fixed_digest" in run.attrs else ""):
        raise UserError(f"{path} was trained with other frozen parameters or constants than --model {options['model']} "
                        "has here; was its code or the file that it reads changed?")
    _tell_personal(path, make(catalog.STRATEGIES, options["strategy"]), layout, network, warn)
    mask = counted(make(catalog.PRUNERS, options["pruner"]), layout, state)
    x.copy_(served(state["x"], layout.support(mask), layout))
    masks = {slot.name: mask[slot.span].view(slot.shape).clone() for slot in layout.weights}
    tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    found = Trained(tensors, masks, {})
    about = {"model": options["model"], "round": done, "sparsity": found.sparsity, "run_id": run.attrs["run_id"],
             "inputs": inputs, "options": options,
             "uses": dict(zip(masks, _uses(run.attrs, network, layout))), "tied": _tied(network),
             "flops_other": sum(run.attrs.get("flops_other", {}).values())}
    leading = headline(run)
    recorded = {name: float(run.rounds[name][done - 1]) for name in (leading.name, "loss")
                if name in run.rounds and 0 < done <= len(run.ends) and np.isfinite(run.rounds[name][done - 1])}
    return found._replace(about={leading.name: None, "loss": None} | recorded | about | {"headline": leading.name})


def _tell_personal(path, strategy, layout, network, warn):
    """A line about the tensors that stay with clients: the server never had their values."""
    personal = laid_out(layout, network, strategy.personal).personal
    if personal:
        warn(f"{path}: {len(personal)} of {len(layout.slots)} tensors stay with the clients, each of which has its "
             "own; here they are as the model's factory made them")


def _tied(network):
    """The names under which the state dict holds a tensor once more: a head that is an embedding,
    say."""
    state, parts = network.state_dict(), [*network.named_parameters(), *network.named_buffers()]
    return sorted(state.keys() - {name for name, _ in parts})


def _uses(attrs, network, layout):
    """Uses of a weight for one sample, one a prunable tensor; run files before schema 2 do not
    record them."""
    recorded = [use for _, _, *use in attrs.get("layers", [])]
    if recorded and all(recorded):
        return [use for use, in recorded]
    return costs(network, layout, torch.zeros(1, *_inputs(attrs)["shape"])).macs_per_weight


def _inputs(attrs):
    """What the model takes; run files that do not record it (before schema 2) need their data set
    for it."""
    if "inputs" in attrs:
        return attrs["inputs"]
    options = attrs["options"]
    data = make(catalog.DATASETS, options["dataset"], options["data_dir"])
    return inputs_record(data)


def write(found, path, sparse=False):
    """Writes the ``Trained`` model to ``path``; what is there is replaced. DiskError where the disk
    refuses it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    tensors = {name: tensor.contiguous() for name, tensor in found.state.items()
               if not (sparse and name in found.masks)}
    for name, mask in found.masks.items():
        if sparse:
            tensors[f"{name}.values"] = found.state[name][mask]
        tensors[f"{name}.mask"] = torch.from_numpy(np.packbits(mask.numpy())) if sparse else mask
    shapes = {name: list(mask.shape) for name, mask in found.masks.items()}
    about = found.about | {"form": "sparse" if sparse else "dense", "shapes": shapes}
    try:
        save_file(tensors, path, {"format": "pt"} | {name: _text(value) for name, value in about.items()})
    except SafetensorError as error:
        raise DiskError(f"cannot write {path}: {' '.join(str(error).split())}") from error


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def load(path):
    """The ``Trained`` model that ``write`` wrote; UserError in one line if it is none."""
    from safetensors import SafetensorError, safe_open
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such file")
    try:
        with safe_open(path, "pt") as f:
            about = f.metadata() or {}
            names = f.keys()
            tensors = {name: f.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file ({' '.join(str(error).split())})") from error
    if "shapes" not in about:
        raise UserError(f"{path}: safetensors, but no model of fedmpi export-model")
    about = {name: _value(name, text) for name, text in about.items() if name != "format"}
    shapes = about.pop("shapes")
    masks = {name: _mask(tensors.pop(f"{name}.mask"), shape) for name, shape in shapes.items()}
    if about.pop("form") == "sparse":
        for name, mask in masks.items():
            tensors[name] = torch.zeros(mask.shape).masked_scatter_(mask, tensors.pop(f"{name}.values"))
    return Trained(tensors, masks, about)


def _value(name, text):
    return text if name in ("form", "model", "run_id", "headline") else json.loads(text)


def _mask(stored, shape):
    if stored.dtype == torch.bool:
        return stored
    return torch.from_numpy(np.unpackbits(stored.numpy(), count=int(np.prod(shape))).astype(bool)).view(shape)


def by_layer(found):
    """A dict for each prunable tensor, then one for all others, buffers included, and one for the
    model: ``layer``, ``shape``, ``weights``, ``kept``, ``sparsity``, ``flops`` of a sample's
    forward pass, ``flops_dense``, and ``dense_bytes`` and ``sparse_bytes`` in the two kinds of
    file, tensors alone."""
    rows = []
    for name, mask in found.masks.items():
        size, kept, use = mask.numel(), int(mask.sum()), found.about["uses"][name]
        rows.append({"layer": name, "shape": list(mask.shape), "weights": size, "kept": kept,
                     "sparsity": 1 - kept / size, "flops": 2 * kept * use, "flops_dense": 2 * size * use,
                     "dense_bytes": 5 * size, "sparse_bytes": 4 * kept + -(-size // 8)})
    once = found.state.keys() - found.masks.keys() - set(found.about.get("tied", ()))
    others = [found.state[name] for name in once]
    count, size = sum(t.numel() for t in others), sum(t.numel() * t.element_size() for t in others)
    always = found.about.get("flops_other") or None
    rows.append({"layer": "dense parameters, buffers", "shape": None, "weights": count, "kept": count, "sparsity": None,
                 "flops": always, "flops_dense": always, "dense_bytes": size, "sparse_bytes": size})
    sums = {key: sum(row[key] or 0 for row in rows)
            for key in ("weights", "kept", "flops", "flops_dense", "dense_bytes", "sparse_bytes")}
    return [*rows, {"layer": "model", "shape": None, "sparsity": found.sparsity} | sums]
