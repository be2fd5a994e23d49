"""Forward passes of clients that train side by side, and their gradients.

A chain of layers runs as one wide network, by rules for its layers; any other module goes through
``torch.func.vmap``. Both are in training mode, with batch statistics of each client's own.

Sizes: a clients at work, B samples of each in a step.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from fedmpi.compute.forward import ELEMENTWISE, body_rule, chain, through
from fedmpi.core.layout import ALIGN

NORMS = nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm
NO_CHAIN = (
    "the model has statistics that training moves, and is no chain of layers (nn.Sequential with "
    "one nn.Flatten, of convolutions, linear layers, batch norm, pooling, activations and dropout)"
)


class Step(NamedTuple):
    """The facts about a step that a layer may need beside its input."""

    # Steps before it, for a norm that averages by their number.
    number: int
    # (B, a), if batches differ in size.
    shares: torch.Tensor | None


def averages(module):
    """Whether a layer is a norm that averages over its batches by their number."""
    return isinstance(module, NORMS) and module.momentum is None


# --- derivatives ---


def leaves(layout, X):
    """``{name: (a, *shape)}``, views of the rows of ``X (a, P)``: parameters as leaves of a graph,
    and buffers."""
    tensors = {}
    for slot in layout.weights + layout.others:
        # By .data each has a version of its own: buffers move before the gradient is taken.
        tensors[slot.name] = slot.of_rows(X).data.requires_grad_()
    for slot in layout.buffers:
        tensors[slot.name] = slot.of_rows(X)
    return tensors


def gradient(value, layout, tensors, g):
    """Write the derivative of ``value`` by the parameters among ``tensors`` to ``g (a, R)``, 0 on
    padding."""
    slots = layout.weights + layout.others
    parameters = [tensors[slot.name] for slot in slots]
    slopes = torch.autograd.grad(value, parameters, materialize_grads=True)
    padding = g.new_zeros(len(g), ALIGN)
    parts = []
    for slot, slope in zip(slots, slopes):
        parts.append(slope.flatten(1))
        parts.append(padding[:, : -slot.size % ALIGN])
    torch.cat(parts, 1, out=g)


def refusal(model, layout, sample):
    """The reason why clients of this model cannot train side by side: half a line, or empty.

    ``sample (2, ...)`` is an input of each of two clients; other values are not tried.
    """
    if _rules(model, layout, torch.device("cpu")) is not None:
        return ""
    if layout.buffers or any(isinstance(module, NORMS) for module in model.modules()):
        return NO_CHAIN
    device = next(model.parameters()).device
    tensors = leaves(layout, torch.zeros(2, layout.P, device=device))
    g = torch.empty(2, layout.R, device=device)
    try:
        outputs = _mapped(model, tensors, sample[None].to(device), None)
        gradient(outputs.sum(), layout, tensors, g)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        return f"torch.func.vmap cannot map the model: {reason}"
    return ""


# --- forward passes ---


def wide_forward(model, layout, device):
    """``forward(tensors, inputs (B, a, ...), step) -> logits (a, B, ...)`` in training mode."""
    rules = _rules(model, layout, device)
    if rules is None:
        return partial(_mapped, model)
    return partial(_wide, *rules)


def _mapped(model, tensors, inputs, step):
    """Logits of any module that does not mix samples."""
    def one(tensors, inputs):
        return functional_call(model, tensors, (inputs,))

    return vmap(one, in_dims=(0, 1), randomness="different")(tensors, inputs)


def _wide(body, head, memory_format, tensors, inputs, step):
    """Logits of a chain; ``body`` and ``head`` are rules ``(tensors, step) -> layer``."""
    head_layers = [rule(tensors, step) for rule in head]
    if not body:
        flat = inputs.flatten(2)
        return through(head_layers, flat.transpose(0, 1))
    B, a = inputs.shape[:2]
    body_layers = [rule(tensors, step) for rule in body]
    wide_inputs = inputs.flatten(1, 2).to(memory_format=memory_format)
    h = through(body_layers, wide_inputs)
    flat = h.reshape(B, a, -1)
    return through(head_layers, flat.transpose(0, 1))


def _rules(model, layout, device):
    """``(body, head, memory format)``; None unless the model is a chain of layers with rules."""
    layers = chain(model)
    if layers is None:
        return None
    body_layers, head_layers = layers
    # On a CPU channels that lie last are a third faster.
    memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    stack = _stack(model, layout)
    body = [_body_rule(layer, stack, memory_format) for layer in body_layers]
    head = [_head_rule(layer, stack) for layer in head_layers]
    if None in body + head:
        return None
    return body, head, memory_format


def _stack(model, layout):
    """``stack(tensors, tensor) -> (a, *shape)``: the clients' values of one of the model's."""
    in_vector = {slot.name for slot in layout.slots}
    name_of = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in in_vector:
            name_of[id(tensor)] = name

    def stack(tensors, tensor):
        if id(tensor) in name_of:
            return tensors[name_of[id(tensor)]]
        # Frozen: the same for all.
        clients = len(next(iter(tensors.values())))
        return tensor.detach().expand(clients, *tensor.shape)

    return stack


def _body_rule(layer, stack, memory_format):
    """``rule(tensors, step) -> layer`` on ``(B, a * channels, ...)``; None without a rule."""
    if type(layer) is nn.BatchNorm2d:
        return partial(_norm, layer, stack, _counted(layer))
    rule = body_rule(layer, stack, shared=False, memory_format=memory_format)
    if rule is None:
        return None
    return lambda tensors, step: rule(tensors)


def _head_rule(layer, stack):
    """``rule(tensors, step) -> layer`` on ``(a, B, features)``; None without a rule."""
    if type(layer) in ELEMENTWISE:
        return lambda tensors, step: layer
    if type(layer) is nn.BatchNorm1d:
        return partial(_flat_norm, layer, stack, _counted(layer))
    if type(layer) is nn.Linear:
        return partial(_linear, layer, stack)
    return None


def _linear(layer, stack, tensors, step):
    """A linear layer of all clients."""
    # As the first factor the weight has a gradient in its own order, and nothing is copied.
    weight = stack(tensors, layer.weight)
    bias = None
    if layer.bias is not None:
        bias = stack(tensors, layer.bias)[:, :, None]

    def linear(h):
        columns = h.transpose(1, 2)
        if bias is None:
            return torch.bmm(weight, columns).transpose(1, 2)
        return torch.baddbmm(bias, weight, columns).transpose(1, 2)

    return linear


def _counted(layer):
    """The batches that a norm has seen before these clients train, if it averages by them."""
    if layer.track_running_stats and layer.momentum is None:
        return int(layer.num_batches_tracked)
    return 0


def _flat_norm(layer, stack, counted, tensors, step):
    """Batch norm of ``(a, B, features)``."""
    norm = _norm(layer, stack, counted, tensors, step)

    def flat_norm(h):
        a = len(h)
        wide = h.transpose(0, 1).flatten(1)
        normed = norm(wide).unflatten(1, (a, -1))
        return normed.transpose(0, 1)

    return flat_norm


def _norm(layer, stack, counted, tensors, step):
    """Batch norm of ``(B, a * channels, ...)`` by each client's own batch.

    Its running statistics are moved in place.
    """
    def own(tensor):
        return None if tensor is None else stack(tensors, tensor)

    weight, bias = own(layer.weight), own(layer.bias)
    mean, var = own(layer.running_mean), own(layer.running_var)
    factor = layer.momentum
    if factor is None:
        factor = 1 / (counted + step.number + 1)

    def move(batch_mean, batch_var):
        """Move the statistics by these (a, channels), the variance unbiased."""
        if mean is not None:
            mean.lerp_(batch_mean, factor)
            var.lerp_(batch_var, factor)

    if step.shares is None:
        return partial(_even_norm, layer, weight, bias, move)
    return partial(_uneven_norm, layer, weight, bias, move, step.shares)


def _even_norm(layer, weight, bias, move, h):
    """Batch norm of batches of one size."""
    # With momentum 1 the "running" statistics are those of this batch alone.
    batch_mean = torch.zeros(h.shape[1], device=h.device)
    batch_var = torch.zeros(h.shape[1], device=h.device)
    if weight is not None:
        weight = weight.flatten()
    if bias is not None:
        bias = bias.flatten()
    h = F.batch_norm(
        h, batch_mean, batch_var, weight, bias, training=True, momentum=1.0, eps=layer.eps
    )
    by_client = (-1, layer.num_features)
    move(batch_mean.view(by_client), batch_var.view(by_client))
    return h


def _uneven_norm(layer, weight, bias, move, shares, h):
    """Batch norm of batches filled up with samples of weight 0 in ``shares (B, a)``."""
    h = h.unflatten(1, (-1, layer.num_features))
    # (B, a, channels, *places): all but clients and channels are averaged.
    dims = (0, *range(3, h.ndim))
    ones = [1] * (h.ndim - 3)
    places = h[0, 0, 0].numel()
    shares = shares.view(*shares.shape, 1, *ones) / places

    batch_mean = (h * shares).sum(dims, keepdim=True)
    h = h - batch_mean
    batch_var = (h.square() * shares).sum(dims, keepdim=True)
    with torch.no_grad():
        # The number of values behind a client's statistics.
        values = 1 / shares.amax(0, keepdim=True)
        unbiased = batch_var * (values / (values - 1))
        a, channels = h.shape[1:3]
        move(batch_mean.reshape(a, channels), unbiased.reshape(a, channels))

    h = h * (batch_var + layer.eps).rsqrt()
    if weight is not None:
        shape = (*weight.shape, *ones)
        h = h * weight.view(shape) + bias.view(shape)
    return h.flatten(1, 2)
