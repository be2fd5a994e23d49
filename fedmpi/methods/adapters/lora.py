"""LoRA: a pair of small matrices beside each chosen layer; the model itself is frozen.

    y = x W^T + b + (alpha / rank) x A^T B^T        W (d_out, d_in), A (rank, d_in), B (d_out, rank)

A is drawn from the uniform law on +-1 / sqrt(d_in), as by the paper's code, by the run's seed: it is
the same on every rank. B is 0, so that training starts from the model as it is. With a mean of the
updates (fedavg, diloco ...) ``lora`` is FedIT: A and B are averaged apart, and the mean of products
is not the product of means. ``ffa-lora`` freezes A: then the mean of B gives the exact mean product.
``--strategy flora`` adds the exact mean product to the model.
"""

import math
import re

import torch
from torch import nn
from torch.nn import functional as F

from fedmpi.core.adapters import drawn_A
from fedmpi.core.parts import Adapters
from fedmpi.core.tensors import NORMS

# Parts of a layer's path by which models call their attention, and their MLP.
PLACES = {
    "attention": r"(^|\.)(attention|self_attention|self_attn|attn)(\.|$)",
    "mlp": r"(^|\.)(mlp|feed_forward|ffn)(\.|$)",
    "all": "",
}


def lora(rank: int = 8, alpha: float = 16.0, on: str = "attention", also: str = ""):
    """Adapters A and B beside frozen linear layers, both trained.

    ``on``: attention, mlp or all (linear layers that masks may prune, so no head of a language
    model), or a regular expression that fits somewhere in a layer's name. ``also``: what else is
    trained, joined by +: norms, biases, or regular expressions for names of parameters, as head.

    Paper: Hu et al. 2022, "LoRA", arXiv 2106.09685; with a mean of updates FedIT, Zhang et al. 2024,
        "Towards Building the Federated GPT: Federated Instruction Tuning", arXiv 2305.05644.
    Up: 4 bytes for every value of A and B: rank (d_in + d_out) a layer.
    Down: as much; the frozen model is sent once, before the first round.
    Example: fedmpi train --model vit:depth=1,width=16,heads=2 --adapters lora:rank=2 --lr 0.01
        --strategy fedavg
    """
    return adapters(rank, alpha, on, also, trained=("lora_A", "lora_B"))


def ffa_lora(rank: int = 8, alpha: float = 16.0, on: str = "attention", also: str = ""):
    """Adapters of which B alone is trained: A stays as drawn.

    The options are those of ``lora``.

    Paper: Sun et al. 2024, "Improving LoRA in Privacy-preserving Federated Learning", arXiv
        2403.12313.
    Up: 4 bytes for every value of B: rank d_out a layer.
    Down: as much; the frozen model, and A, are sent once, before the first round.
    Example: fedmpi train --model vit:depth=1,width=16,heads=2 --adapters ffa-lora:rank=2
        --lr 0.01 --strategy fedavg
    """
    return adapters(rank, alpha, on, also, trained=("lora_B",))


def adapters(rank, alpha, on, also, trained):
    """The ``Adapters`` of these options; ``trained`` names the matrices that are trained."""
    if rank < 1:
        raise ValueError(f"rank must be >= 1, got {rank}")
    if not alpha > 0 or math.isinf(alpha):
        raise ValueError(f"alpha must be a number above 0, got {alpha:g}")
    pattern = PLACES.get(on, on)
    _check_pattern("on", pattern)
    wishes = [wish for wish in also.split("+") if wish]
    for wish in wishes:
        _check_pattern("also", wish)

    def attach(network, gen, base):
        network.requires_grad_(False)
        _thaw(network, wishes)
        return _with_adapters(network, on, pattern, rank, alpha / rank, trained, gen, base)

    return Adapters(attach)


def _check_pattern(option, pattern):
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{option} must be a regular expression, got {pattern!r} ({error})") from None


# ---------------------------------------------------------------- the layer


class LoraLinear(nn.Linear):
    """A linear layer with an adapter beside its weight.

    ``layer`` gives weight and bias, A and B are made. ``base``: the weight is a buffer, which
    merges change.
    """

    adapter = ("lora_A", "lora_B", "weight")

    def __init__(self, layer, rank, scale, base):
        # The layer's own tensors come below.
        super().__init__(layer.in_features, layer.out_features, False, device="meta")
        self.scale = scale
        if base:
            weight = layer.weight.detach()
            del self.weight
            self.register_buffer("weight", weight)
        else:
            self.weight = layer.weight
        self.bias = layer.bias
        self.lora_A = nn.Parameter(torch.zeros(rank, layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        low = self.scale * F.linear(x, self.lora_A)
        change = F.linear(low, self.lora_B)
        return F.linear(x, self.weight, self.bias) + change


# ---------------------------------------------------------------- the model


def _with_adapters(network, on, pattern, rank, scale, trained, gen, base):
    """The network with adapters beside the chosen layers."""
    layers = _linear_layers(network)
    chosen = [path for path in layers if re.search(pattern, path)]
    if not chosen:
        names = ", ".join(layers) or "none"
        raise ValueError(f"on={on} fits no linear layer of the model; it has {names}")
    for path in chosen:
        layer = layers[path]
        smaller_side = min(layer.weight.shape)
        if rank > smaller_side:
            raise ValueError(f"rank must be at most {smaller_side}, the smaller side of {path}, "
                             f"got {rank}")
        if layer.weight.requires_grad:
            raise ValueError(f"also names the weight of {path}, which has an adapter; leave it to "
                             "the adapter, or out of on")
        adapted = LoraLinear(layer, rank, scale, base)
        drawn_A(adapted.lora_A.data, gen)
        for name in ("lora_A", "lora_B"):
            matrix = getattr(adapted, name)
            matrix.requires_grad_(name in trained)
        network = _replaced(network, path, adapted)
    return network


def _linear_layers(network):
    """``{path: layer}`` of the layers that may have an adapter.

    Left out are layers in two places, or of a weight in two layers, as a head tied to its table;
    dense layers, as the head of a language model; and kinds of linear layers, as torch's own
    attention has one and reads its weight past the layer.
    """
    holders = {}
    # A layer in two places holds its weight twice.
    for _, module in network.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    layers = {}
    for path, module in network.named_modules():
        if type(module) is not nn.Linear:
            continue
        is_shared = holders[id(module.weight)] > 1
        is_dense = getattr(module.weight, "prunable", None) is False
        if not (is_shared or is_dense):
            layers[path] = module
    return layers


def _replaced(network, path, layer):
    """The network with ``layer`` at ``path``; itself a layer, it is replaced."""
    if not path:
        return layer
    above, _, name = path.rpartition(".")
    setattr(network.get_submodule(above), name, layer)
    return network


def _thaw(network, wishes):
    """Train the parameters that ``wishes`` name; ValueError for a wish that fits none."""
    for wish in wishes:
        wanted = _parameters(network, wish)
        if not wanted:
            names = ", ".join(name for name, _ in network.named_parameters())
            raise ValueError(f"also={wish} fits no parameter of the model; it has {names}")
        for parameter in wanted:
            parameter.requires_grad_(True)


def _parameters(network, wish):
    """The parameters that one part of ``also`` names."""
    if wish == "norms":
        of_norms = []
        for module in network.modules():
            if isinstance(module, NORMS):
                of_norms += module.parameters(recurse=False)
        return of_norms
    pattern = r"(^|\.)bias$" if wish == "biases" else wish
    # A head tied to a table is the same parameter by another name.
    named = network.named_parameters(remove_duplicate=False)
    return [parameter for name, parameter in named if re.search(pattern, name)]
