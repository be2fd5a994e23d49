"""Adapters of a model: pairs of small matrices whose product is added to a frozen weight.

    y = x W^T + scale * x A^T B^T          W (d_out, d_in), A (r, d_in), B (d_out, r)

A module with an adapter names its three tensors in the attribute ``adapter``, in the order of
``Adapter``, and has a ``scale``. W is a frozen parameter, or a buffer if merges change it.
"""

import math
from typing import NamedTuple


class Adapter(NamedTuple):
    """The names of an adapter's tensors in its model, and its scale."""

    A: str
    B: str
    weight: str
    scale: float


def adapters_of(model):
    """The ``Adapter`` of each module that has one, in the model's order."""
    adapters = []
    for path, module in model.named_modules():
        names = getattr(module, "adapter", None)
        if names is None:
            continue
        whole_names = [f"{path}.{name}".removeprefix(".") for name in names]
        adapters.append(Adapter(*whole_names, module.scale))
    return tuple(adapters)


def base_buffers(model):
    """The names of buffers that hold a base: weights that merges change, and no training."""
    buffers = dict(model.named_buffers())
    return [adapter.weight for adapter in adapters_of(model) if adapter.weight in buffers]


def drawn_A(A, gen):
    """``A (r, d_in)``, drawn anew in place by a torch generator: uniform on +-1 / sqrt(d_in)."""
    bound = 1 / math.sqrt(A.shape[1])
    return A.uniform_(-bound, bound, generator=gen)


def merged_state(network):
    """``{name: tensor}``: the state dict of the network without adapters, their products added.

    The tensors are copies.
    """
    state = {}
    for name, tensor in network.state_dict().items():
        state[name] = tensor.detach().clone()
    for adapter in adapters_of(network):
        A = state.pop(adapter.A)
        B = state.pop(adapter.B)
        state[adapter.weight].addmm_(B, A, alpha=adapter.scale)
    return state
