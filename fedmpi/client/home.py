"""A rank's one resident model, bound to its vector on the device. Clients take turns in it."""

from typing import Any, Callable, NamedTuple

import torch

from fedmpi.compute.graphs import recorder
from fedmpi.compute.several import laid_out
from fedmpi.compute.sgd import casting
from fedmpi.compute.staging import Staging, staging
from fedmpi.core.errors import UserError
from fedmpi.core.layout import Layout, bind, check
from fedmpi.core.tensors import constants, digest_of_constants, set_frozen


class Home(NamedTuple):
    """The model and the vectors that clients of this rank train in."""

    model: torch.nn.Module
    layout: Layout
    x: torch.Tensor               # (P,) the model's own vector, on the device
    g: torch.Tensor               # (R,) its gradient
    # (P,) on the host, the same on all ranks: as the factory made it, but for a base, which stands
    # as the last merge left it. None unless clients keep values of their own, or there is a base.
    initial: torch.Tensor | None
    device: torch.device
    casting: Callable             # the context of forward passes
    recorder: Any                 # graphs.Recorder on a GPU, else None
    stage: Staging                # between the host, where messages are made, and the device
    counters: list                # [(buffer, its first value)] of all buffers outside the vector
    spare: dict | None            # see ``Task.spare``; None on a GPU, whose recorder has its own


def home(model, loss, device, options, meta, shared, personal, first=None, unsent=None,
         in_part=False):
    """The ``Home`` of ``model``, which trains on ``loss``, by the set-up message ``meta``.

    ``shared`` holds the node's shared arrays, its frozen parameters among them. ``personal(layout)``
    names personal tensors, or is None. ``first (P,)`` are the model's first values, and ``unsent``
    rank 0's values at the layout's ``unsent_positions``; None: as the factory made them here.
    ``in_part``: a part of the model travels in a round. UserError if the model differs from rank
    0's.
    """
    model = model.to(device)
    layout, x, g = bind(model, meta["statistics"])
    check(model, layout, x)
    set_frozen(model, shared)
    own_constants = digest_of_constants(model, layout)
    if own_constants != meta["constants"]:
        raise UserError(f"--model {options['model']} has other constants in its buffers on this "
                        "rank than on rank 0: draw them by torch's generator, which is seeded "
                        "alike on all ranks")
    layout = laid_out(layout, model, personal)
    if first is not None:
        x.copy_(first)
    if unsent is not None:
        x[layout.unsent_positions.to(device)] = unsent.to(device)
    initial = None
    if layout.personal or layout.base or in_part:
        initial = x.cpu().clone()
    # Some buffers count, as batch norms do; no client may find the last one's counts.
    spare = {} if device.type == "cpu" else None
    counters = [(buffer, buffer.clone()) for _, buffer in constants(model, layout)]
    return Home(
        model=model,
        layout=layout,
        x=x,
        g=g,
        initial=initial,
        device=device,
        casting=casting(options["precision"], device),
        recorder=recorder(model, device, loss),
        stage=staging(layout.P, device),
        counters=counters,
        spare=spare)


def fresh_counters(home):
    """Set buffers that no message carries to their first values: no client finds the last one's."""
    for buffer, first in home.counters:
        buffer.copy_(first)
