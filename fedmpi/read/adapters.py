"""The adapters of a run alone, in the files that the library peft reads.

A folder holds ``adapter_model.safetensors``, with A and B of the layer PATH as
``base_model.model.PATH.lora_A.weight (r, d_in)`` and ``base_model.model.PATH.lora_B.weight
(d_out, r)``, and ``adapter_config.json``.
"""

import json
import os
from typing import NamedTuple

from fedmpi import catalog
from fedmpi.core.errors import DiskError, UserError
from fedmpi.plugins.spec import make
from fedmpi.read.trained import PATIENCE_S, restored
from fedmpi.store import read_run

TENSORS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


class TrainedAdapters(NamedTuple):
    """A run's adapters."""

    tensors: dict                 # {name in the file: tensor}
    config: dict
    left_out: list                # names of tensors that the run trained besides


def trained_adapters(path, round=None, warn=lambda line: None):
    """The ``TrainedAdapters`` after ``round`` of the run file ``path``; UserError if there are none,
    or if merges have put them into the model."""
    run = read_run(path, {"rounds"}, PATIENCE_S)
    options = run.attrs["options"]
    if make(catalog.STRATEGIES, options["strategy"]).absorb is not None:
        raise UserError(f"{path}: --strategy {options['strategy']} adds adapters to the model in each "
                        "round; leave --adapters-only out, for the merged model")
    network, layout, _, _ = restored(path, run, round, warn)
    if not layout.adapters:
        raise UserError(f"{path}: the run has no adapters; leave --adapters-only out")
    state = network.state_dict()
    tensors = {}
    paths = []
    for adapter in layout.adapters:
        layer, _, _ = adapter.weight.rpartition(".")
        paths.append(layer)
        for letter, name in (("A", adapter.A), ("B", adapter.B)):
            values = state[name].detach().clone()
            tensors[f"base_model.model.{layer}.lora_{letter}.weight"] = values
    of_adapters = {name for adapter in layout.adapters for name in (adapter.A, adapter.B)}
    left_out = [slot.name for slot in layout.slots if slot.name not in of_adapters]
    rank = len(state[layout.adapters[0].A])
    return TrainedAdapters(tensors, _config(options, paths, rank, layout.adapters[0].scale), left_out)


def _config(options, paths, rank, scale):
    """peft's description of these adapters."""
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "target_modules": paths,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "base_model_name_or_path": options["init_from"],
    }


def write(adapters, folder):
    """Write ``TrainedAdapters`` to a folder, made if it is missing; DiskError if the disk refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    try:
        os.makedirs(folder, exist_ok=True)
        save_file(adapters.tensors, os.path.join(folder, TENSORS), {"format": "pt"})
        with open(os.path.join(folder, CONFIG), "w", encoding="utf-8") as file:
            json.dump(adapters.config, file, indent=2)
    except (OSError, SafetensorError) as error:
        raise DiskError(f"cannot write to {folder}: {' '.join(str(error).split())}") from error
