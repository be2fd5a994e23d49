"""The smaller network that is left of a model without some of its filters and neurons.

It is a module of the same architecture whose tensors lie in a vector of its own. It computes what
the whole model would with all entries of the cut units at zero, in less time.
"""

import copy
from typing import NamedTuple

import torch
from torch import nn

from fedmpi.compute.trace import all_of
from fedmpi.core.errors import UserError
from fedmpi.core.layout import Layout
from fedmpi.core.support import gathered, index_of, scattered
from fedmpi.core.tensors import mode
from fedmpi.core.units import held, small_layout

SAME = 1e-4      # of the largest output: by how much two ways to compute it may differ


class Cut(NamedTuple):
    """A smaller network, bound to a vector of its own. K values are in it, and padding."""

    model: nn.Module
    layout: Layout
    x: torch.Tensor               # (P',) the model's own vector
    g: torch.Tensor               # (R',) its gradient
    support: torch.Tensor         # (K,) int32, sorted: its values in the whole model's vector
    places: torch.Tensor          # (K,) int32, sorted: its values in its own vector

    def down(self, x):
        """Take the values of the whole model's ``x (P,)``."""
        scattered(gathered(x, self.support), self.places, self.x)

    def up(self, values, into):
        """``into (P,)``, with ``values (P',)`` written to their places in the whole vector."""
        return scattered(gathered(values, self.places), self.support, into)


def cut(model, structure, units):
    """The ``Cut`` of ``model`` that keeps ``units (U,) bool``. Its vector is zero at first.

    It shares frozen parameters, constants and counters with ``model``, which is left as it is.
    """
    layout = small_layout(structure, units)
    device = next(model.parameters()).device
    x, g = torch.zeros(layout.P, device=device), torch.zeros(layout.R, device=device)
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    # Copying a module, deepcopy takes these for the copies of its tensors.
    copies = {id(tensor): tensor for tensor in tensors.values()}
    for slot in layout.slots:
        copies[id(tensors[slot.name])] = _tensor(slot, layout, x, g)
    smaller = copy.deepcopy(model, copies)
    for module in smaller.modules():
        _resize(module)
    support = torch.from_numpy(index_of(held(structure, units).numpy())).to(device)
    places = torch.from_numpy(index_of(layout.real.numpy())).to(device)
    return Cut(smaller, layout, x, g, support, places)


def _tensor(slot, layout, x, g):
    """The parameter or statistic that lies in ``x`` at this slot."""
    # By .data each has a version of its own: statistics move before the backward pass.
    tensor = x[slot.span].view(slot.shape).data
    if slot.offset >= layout.R:
        return tensor
    parameter = nn.Parameter(tensor)
    parameter.grad = g[slot.span].view(slot.shape)
    return parameter


def _resize(module):
    """Let a module say the sizes that its tensors have."""
    if isinstance(module, nn.modules.conv._ConvNd) and not module.transposed:
        depthwise = module.groups > 1 and module.groups == module.in_channels
        if depthwise:
            module.groups = len(module.weight) * module.groups // module.out_channels
        module.out_channels = len(module.weight)
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        for tensor in (module.weight, module.running_mean):
            if tensor is not None:
                module.num_features = len(tensor)


def check(model, structure, x, sample):
    """UserError where the network without every other unit is not the whole one with these zero.

    ``x (P,)`` is the vector to which ``model`` is bound, ``sample (n, ...)`` what both are asked.
    Both are left as they were. A model whose code fixes a width, as in ``x.view(-1, 320)``, fails.
    """
    counts = structure.layers.values()
    units = torch.cat([torch.arange(count) % 2 == 0 for count in counts])
    smaller, before = cut(model, structure, units), x.clone()
    smaller.down(x)
    try:
        x.mul_(held(structure, units).to(x.device))
        expected = _outputs(model, sample)
    finally:
        x.copy_(before)
    try:
        got = _outputs(smaller.model, sample)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError("the model does not work without half of its filters and neurons "
                        f"({str(error).splitlines()[0]}); {FIXES_SIZES}") from error
    if len(got) != len(expected) or not all(map(_same, got, expected)):
        raise UserError("without half of its filters and neurons the model computes something "
                        f"else than with these zero; {FIXES_SIZES}")


FIXES_SIZES = ("its own code may fix a number of channels: flatten by x.flatten(1), and take sizes "
               "from x.shape")


def _outputs(model, sample):
    with torch.no_grad(), mode(model, training=False):
        return all_of(model(sample))


def _same(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=SAME, atol=SAME * float(b.abs().max()))
