"""A rank's one resident model: bound to its vector, on the rank's device. Clients take turns in it."""

from typing import Any, Callable, NamedTuple

import torch

from fedmpi.compute.graphs import recorder
from fedmpi.compute.several import laid_out
from fedmpi.compute.sgd import casting
from fedmpi.compute.staging import Staging, staging
from fedmpi.core.errors import UserError
from fedmpi.core.layout import Layout, bind, check
from fedmpi.core.tensors import constants, fixed, set_frozen


class Home(NamedTuple):
    """The model and the vectors that clients of this rank train in."""

    model: torch.nn.Module
    layout: Layout
    x: torch.Tensor               # (P,) the model's own vector, on the device
    g: torch.Tensor               # (R,) its gradient
    initial: torch.Tensor         # (P,) as the factory made it, on the host; the same on all ranks
    device: torch.device
    casting: Callable             # the context of forward passes
    recorder: Any                 # graphs.Recorder on a GPU, else None
    stage: Staging                # between the host, where messages are made, and the device
    counters: list                # [(buffer, its first value)] of all buffers that are not in the vector


def home(model, loss, device, options, meta, frozen, personal):
    """The ``Home`` of ``model``, which trains on ``loss``, as the set-up message ``meta`` describes it; ``frozen`` are
    the values of its frozen parameters, ``personal(layout)`` names the tensors that stay with clients, or is None."""
    layout, x, g = bind(model.to(device), meta["statistics"])
    check(model, layout, x)
    set_frozen(model, frozen)
    if fixed(model, layout).constants != meta["constants"]:
        raise UserError(f"--model {options['model']} has other constants in its buffers on this rank than on rank 0: "
                        "draw them by torch's generator, which is seeded alike on all ranks")
    layout = laid_out(layout, model, personal)
    counters = [(buffer, buffer.clone()) for _, buffer in constants(model, layout)]
    return Home(model, layout, x, g, x.cpu().clone(), device, casting(options["precision"], device),
                recorder(model, device, loss), staging(layout.P, device), counters)


def fresh_counters(home):
    """Set what no message carries back to its first value, so that no client finds a trace of the one before."""
    for buffer, first in home.counters:
        buffer.copy_(first)
