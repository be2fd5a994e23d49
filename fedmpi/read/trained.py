"""The trained model of a run: taken from a checkpoint, written as safetensors, read again.

A file holds each tensor of the torch state dict under its name, and the mask of each prunable one
under NAME.mask:

* dense: NAME with zeros in place, NAME.mask bool of the same shape;
* sparse: of a prunable tensor NAME.values (K,) float32, its kept weights in C order, and NAME.mask
  (ceil(size / 8),) uint8, a bit a weight in C order, the first in the highest bit (numpy.packbits);
  its shape is in the metadata ``shapes``.

A kept weight may be zero, as one that has just grown is. So masks are stored, rather than derived
from zeros.
"""

import json
import os
from typing import NamedTuple

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.build import tensor_file
from fedmpi.build.parts import network_of
from fedmpi.build.start import start
from fedmpi.compute.several import laid_out
from fedmpi.core.adapters import merged_state
from fedmpi.core.errors import CheckpointError, DiskError, UserError
from fedmpi.core.flops import costs
from fedmpi.core.layout import Layout, bind
from fedmpi.core.tensors import fixed, frozen
from fedmpi.methods.datasets.dataset import inputs_record
from fedmpi.plugins.spec import make
from fedmpi.read.headline import headline
from fedmpi.server.model import mask_counted, model_on
from fedmpi.store import checkpoint_folder, load_checkpoint, read_run

# A network file system may show the newest rounds late.
PATIENCE_S = 2.0
# A dense file stores float32 and a bool for each weight.
DENSE_BYTES = 4 + 1


class TrainedModel(NamedTuple):
    """A trained model.

    ``state``: the torch state dict, zeros in place. ``masks``: {name: bool mask of the tensor's
    shape} of the prunable tensors. ``about``: a dict of texts and numbers:

    * ``model``, ``options``, ``round``, ``run_id``, ``inputs``, ``sparsity``, ``loss``;
    * ``headline``, the name of a metric, whose value stands under that name (``accuracy``, say);
    * ``uses`` {name: float}, how often one sample uses a weight of the tensor;
    * ``flops_other``, of one sample's forward pass, which no mask thins out;
    * ``tied``, the names of tensors that stand in ``state`` under another name too."""

    state: dict
    masks: dict
    about: dict

    @property
    def sparsity(self):
        """Fraction of zeros among the prunable weights."""
        num_kept = sum(int(mask.sum()) for mask in self.masks.values())
        num_weights = sum(mask.numel() for mask in self.masks.values())
        share_kept = num_kept / num_weights
        return 1 - share_kept


def trained(path, round=None, warn=lambda line: None):
    """The ``TrainedModel`` after ``round`` of the run file ``path``.

    The default is the round of the newest checkpoint. The weights are, to the bit, the ones
    evaluated by the run. ``about`` has the recorded headline and loss, None without a record.
    Adapters are merged into the weights beside them: by rounding, the outputs differ."""
    run = read_run(path, {"rounds"}, PATIENCE_S)
    at_end = restored(path, run, round, warn)
    if at_end.layout.adapters:
        return _with_adapters_merged(run, at_end)
    return _model(run, at_end)


class Restored(NamedTuple):
    """The network of a run at a round's end."""

    network: torch.nn.Module
    layout: Layout
    mask: torch.Tensor            # (Q,) bool
    done: int                     # rounds


def restored(path, run, round, warn):
    """The ``Restored`` network of a run, with the values of its checkpoint."""
    state, done = _checkpoint(path, run, round, warn)
    options = run.attrs["options"]
    network, layout, x = _bound_network(run.attrs)
    _check_shapes(path, run.attrs, layout)
    _check_fixed(path, run.attrs, network, layout)
    _warn_of_personal(path, options["strategy"], layout, network, warn)
    pruner = make(catalog.PRUNERS, options["pruner"])
    mask = mask_counted(pruner, layout, state)
    # x is the memory of the network's parameters: this fills them in.
    x.copy_(model_on(state["x"], layout.compact(mask), layout))
    return Restored(network, layout, mask, done)


def _model(run, at_end):
    """The ``TrainedModel`` of a network without adapters."""
    network, layout, mask, done = at_end
    masks = {}
    for slot in layout.weights:
        of_slot = mask[slot.span].view(slot.shape)
        masks[slot.name] = of_slot.clone()
    tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    uses = dict(zip(masks, _uses(run.attrs, network, layout)))
    flops_other = sum(run.attrs.get("flops_other", {}).values())
    return _described(run, done, tensors, masks, uses, flops_other, network)


def _with_adapters_merged(run, at_end):
    """The ``TrainedModel`` of the plain network, the product of each adapter added to its weight."""
    tensors = merged_state(at_end.network)
    network, layout, _ = _bound_network(run.attrs, with_adapters=False)
    masks = {slot.name: torch.ones(slot.shape, dtype=torch.bool) for slot in layout.weights}
    inputs = _inputs(run.attrs)
    dtype = getattr(torch, inputs["dtype"])
    sample = torch.zeros(1, *inputs["shape"], dtype=dtype)
    price = costs(network, layout, sample)
    uses = dict(zip(masks, price.macs_per_weight))
    flops_other = price.dense + price.frozen
    return _described(run, at_end.done, tensors, masks, uses, flops_other, network)


def _described(run, done, tensors, masks, uses, flops_other, network):
    """The ``TrainedModel`` of these tensors, and all about it."""
    result = TrainedModel(tensors, masks, {})
    options = run.attrs["options"]
    about = {
        **_quality(run, done),
        "model": options["model"],
        "round": done,
        "sparsity": result.sparsity,
        "run_id": run.attrs["run_id"],
        "inputs": _inputs(run.attrs),
        "options": options,
        "uses": uses,
        "tied": _tied(network),
        "flops_other": flops_other,
        "headline": headline(run).name,
    }
    return result._replace(about=about)


def _checkpoint(path, run, round, warn):
    """The state of the checkpoint, and the number of rounds played by then."""
    folder = checkpoint_folder(path)
    run_id = run.attrs["run_id"]
    try:
        return load_checkpoint(folder, run_id=run_id, warn=warn, round=round)
    except CheckpointError as error:
        raise UserError(
            f"{path}: {error}. Models are taken from checkpoints; train --keep N keeps more"
        ) from error


def _bound_network(attrs, with_adapters=True):
    """The run's network as it began, its layout, and the vector of its parameters."""
    options = attrs["options"]
    if not with_adapters:
        options = options | {"adapters": "none"}
    inputs = _inputs(attrs)
    # Early run files know classification only: an output a class.
    outputs = inputs.get("outputs", inputs["classes"])
    factory = network_of(options)
    shape = inputs["shape"]
    network = factory(shape, outputs)
    # The vector has all values but the frozen ones.
    if options.get("init_from") and frozen(network):
        start(network, options)
    # Runs from before statistics were recorded have all floating-point buffers in the vector.
    floating = [name for name, buffer in network.named_buffers() if buffer.is_floating_point()]
    statistics = attrs.get("statistics", floating)
    layout, x, _ = bind(network, statistics)
    return network, layout, x


def _check_shapes(path, attrs, layout):
    if layout.digest != attrs["layout_digest"]:
        model = attrs["options"]["model"]
        raise UserError(
            f"{path} holds a model of other shapes than --model {model} makes here; was the "
            "model's code changed?")


def _check_fixed(path, attrs, network, layout):
    """UserError if untrained parameters differ from the run's."""
    # Early run files do not record a digest.
    if "fixed_digest" not in attrs:
        return
    digest = fixed(network, layout).digest
    if attrs["fixed_digest"] != digest:
        model = attrs["options"]["model"]
        raise UserError(
            f"{path} was trained with other frozen parameters or constants than --model {model} "
            "has here; was its code or the file that it reads changed?")


def _warn_of_personal(path, strategy, layout, network, warn):
    """Warns of tensors that stay with clients: the server never had their values."""
    is_personal = make(catalog.STRATEGIES, strategy).personal
    personal = laid_out(layout, network, is_personal).personal
    if personal:
        num_personal = len(personal)
        num_tensors = len(layout.slots)
        warn(f"{path}: {num_personal} of {num_tensors} tensors stay with the clients, each "
             "of which has its own; here they are as the model's factory made them")


def _quality(run, done):
    """The recorded headline and loss after ``done`` rounds, None without a record."""
    quality = {headline(run).name: None, "loss": None}
    if not 0 < done <= len(run.ends):
        return quality
    for name in quality:
        if name in run.rounds:
            values = run.rounds[name]
            value = values[done - 1]
            is_evaluated = np.isfinite(value)
            # NaN stands for a round without an evaluation.
            quality[name] = float(value) if is_evaluated else None
    return quality


def _tied(network):
    """The names under which the state dict repeats a tensor: a head and an embedding in one,
    say."""
    parameters = network.named_parameters()
    # These iterators name a shared tensor once.
    parts = [*parameters, *network.named_buffers()]
    names = {name for name, _ in parts}
    # The state dict repeats them.
    stored = network.state_dict().keys()
    return sorted(stored - names)


def _uses(attrs, network, layout):
    """How often one sample uses a weight, a number for each prunable tensor.

    Run files before schema 2 do not record it: there a sample of zeros passes the network."""
    layers = attrs.get("layers", [])
    recorded = [uses for _, _, *uses in layers]
    # A layer without uses comes from a file of schema 1.
    if recorded and all(recorded):
        return [uses for uses, in recorded]
    shape = _inputs(attrs)["shape"]
    sample = torch.zeros(1, *shape)
    return costs(network, layout, sample).macs_per_weight


def _inputs(attrs):
    """The inputs of the model. Run files without a record of them (before schema 2) need their data
    set."""
    if "inputs" in attrs:
        return attrs["inputs"]
    options = attrs["options"]
    data = make(catalog.DATASETS, options["dataset"], options["data_dir"])
    return inputs_record(data)


# ---------------------------------------------------------------- safetensors


def write(model, path, sparse=False):
    """Writes the ``TrainedModel`` to ``path``; an existing file is replaced.

    DiskError if the disk refuses it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    tensors = _sparse_tensors(model) if sparse else _dense_tensors(model)
    form = "sparse" if sparse else "dense"
    shapes = {name: list(mask.shape) for name, mask in model.masks.items()}
    about = model.about | {"form": form, "shapes": shapes}
    metadata = {name: _text(value) for name, value in about.items()}
    try:
        texts = {"format": "pt"} | metadata
        save_file(tensors, path, texts)
    except SafetensorError as error:
        raise DiskError(f"cannot write {path}: {tensor_file.one_line(error)}") from error


def _dense_tensors(model):
    tensors = {name: tensor.contiguous() for name, tensor in model.state.items()}
    for name, mask in model.masks.items():
        tensors[f"{name}.mask"] = mask
    return tensors


def _sparse_tensors(model):
    tensors = {}
    for name, tensor in model.state.items():
        if name not in model.masks:
            tensors[name] = tensor.contiguous()
    for name, mask in model.masks.items():
        bits = np.packbits(mask.numpy())
        tensors[f"{name}.values"] = model.state[name][mask]
        tensors[f"{name}.mask"] = torch.from_numpy(bits)
    return tensors


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def load(path):
    """The ``TrainedModel`` in a file that ``write`` wrote; UserError in one line for any other
    file."""
    tensors, metadata = tensor_file.read(os.fspath(path))
    if not tensor_file.is_own(metadata):
        raise UserError(f"{path}: safetensors, but no model of fedmpi export-model")
    return TrainedModel(*tensor_file.unpacked(tensors, metadata))


# ---------------------------------------------------------------- layer by layer


def by_layer(model):
    """[dict]: a row for each prunable tensor, one for all others, one for the whole model.

    ``layer``, ``shape``, ``weights``, ``kept``, ``sparsity``; ``flops`` of one sample's forward
    pass and ``flops_dense`` without a mask; ``dense_bytes`` and ``sparse_bytes`` in the two forms
    of file, tensors alone."""
    uses = model.about["uses"]
    rows = [_layer_row(name, mask, uses[name]) for name, mask in model.masks.items()]
    rows.append(_other_row(model))
    whole = {"layer": "model", "shape": None, "sparsity": model.sparsity}
    for column in ("weights", "kept", "flops", "flops_dense", "dense_bytes", "sparse_bytes"):
        whole[column] = sum(row[column] or 0 for row in rows)
    return [*rows, whole]


def _layer_row(name, mask, uses):
    size = mask.numel()
    kept = int(mask.sum())
    mask_bytes = -(-size // 8)
    share_kept = kept / size
    shape = list(mask.shape)
    flops_dense = 2 * size * uses
    dense_bytes = DENSE_BYTES * size
    value_bytes = 4 * kept
    return {
        "layer": name,
        "shape": shape,
        "weights": size,
        "kept": kept,
        "sparsity": 1 - share_kept,
        # A multiplication and an addition each time.
        "flops": 2 * kept * uses,
        "flops_dense": flops_dense,
        "dense_bytes": dense_bytes,
        "sparse_bytes": value_bytes + mask_bytes,
    }


def _other_row(model):
    """The row of the tensors without a mask, buffers included; each tied tensor counts once."""
    tied_names = model.about.get("tied", ())
    tied = set(tied_names)
    masked = model.masks.keys()
    names = model.state.keys() - masked - tied
    tensors = [model.state[name] for name in names]
    count = sum(tensor.numel() for tensor in tensors)
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    # Files of early versions have no such number; 0 is shown as unknown too.
    flops = model.about.get("flops_other") or None
    return {
        "layer": "dense parameters, buffers",
        "shape": None,
        "weights": count,
        "kept": count,
        "sparsity": None,
        "flops": flops,
        "flops_dense": flops,
        "dense_bytes": size_bytes,
        "sparse_bytes": size_bytes,
    }
