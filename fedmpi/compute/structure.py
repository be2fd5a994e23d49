"""A model's smaller network, without some of its filters and neurons.

It is a module of the same architecture whose tensors lie in a vector of its own. Its outputs are
the outputs of the whole model with all entries of the cut units at zero, in less time.
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
from fedmpi.core.units import entries_of, small_layout

# Two ways to compute an output may differ by this share of the largest output.
SAME = 1e-4
FIXES_SIZES = (
    "its own code may fix a number of channels: flatten by x.flatten(1), and take sizes "
    "from x.shape"
)


class Cut(NamedTuple):
    """A smaller network, bound to a vector of its own. K values are in it, and padding."""

    model: nn.Module
    layout: Layout
    x: torch.Tensor               # (P',) the model's own vector
    g: torch.Tensor               # (R',) its gradient
    # (K,) int32, sorted: the positions of its values in the whole model's vector.
    support: torch.Tensor
    # (K,) int32, sorted: the positions of its values in its own vector.
    places: torch.Tensor

    def down(self, x):
        """Take the values of the whole model's ``x (P,)``."""
        values = gathered(x, self.support)
        scattered(values, self.places, self.x)

    def up(self, values, into):
        """``into (P,)``, with ``values (P',)`` written to their places in the whole vector."""
        kept = gathered(values, self.places)
        return scattered(kept, self.support, into)


def cut(model, structure, units):
    """The ``Cut`` of ``model`` to ``units (U,) bool``. Its vector is zero at first.

    It shares frozen parameters, constants and counters with ``model``, and changes none of them.
    """
    layout = small_layout(structure, units)
    device = next(model.parameters()).device
    x = torch.zeros(layout.P, device=device)
    g = torch.zeros(layout.R, device=device)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    # deepcopy looks up the copy of a tensor here, and makes none of its own.
    copies = {id(tensor): tensor for tensor in tensors.values()}
    for slot in layout.slots:
        original = tensors[slot.name]
        copies[id(original)] = _tensor(slot, layout, x, g)
    smaller = copy.deepcopy(model, copies)
    for module in smaller.modules():
        _resize(module)
    entries = entries_of(structure, units)
    support = _positions(entries, device)
    places = _positions(layout.real, device)
    return Cut(smaller, layout, x, g, support, places)


def _positions(mask, device):
    """int32 (K,), sorted, on the device: where ``mask`` is True."""
    index = index_of(mask.numpy())
    return torch.from_numpy(index).to(device)


def _tensor(slot, layout, x, g):
    """The parameter or statistic that lies in ``x`` at this slot."""
    # By .data each has a version of its own: statistics move before the backward pass.
    tensor = slot.of(x).data
    if slot.offset >= layout.R:
        return tensor
    parameter = nn.Parameter(tensor)
    parameter.grad = slot.of(g)
    return parameter


def _resize(module):
    """Set a module's attributes to the sizes of its tensors."""
    if isinstance(module, nn.modules.conv._ConvNd) and not module.transposed:
        _resize_convolution(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        for tensor in (module.weight, module.running_mean):
            if tensor is not None:
                module.num_features = len(tensor)


def _resize_convolution(module):
    filters = len(module.weight)
    depthwise = module.groups > 1 and module.groups == module.in_channels
    if depthwise:
        # Its groups are its inputs' channels: as many go as filters.
        module.groups = filters * module.groups // module.out_channels
    module.out_channels = filters
    module.in_channels = module.weight.shape[1] * module.groups


def check(model, structure, x, sample):
    """UserError unless the network without every other unit equals the whole one with zeros there.

    ``model`` is bound to the vector ``x (P,)``; both networks get ``sample (n, ...)``. The model is
    left as it was. A model whose code fixes a width, as in ``x.view(-1, 320)``, fails.
    """
    every_other = []
    for count in structure.layers.values():
        numbers = torch.arange(count)
        every_other.append(numbers % 2 == 0)
    units = torch.cat(every_other)
    smaller = cut(model, structure, units)
    smaller.down(x)
    entries = entries_of(structure, units)
    expected = _outputs_of_part(model, x, entries, sample)
    try:
        outputs = _outputs(smaller.model, sample)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            "the model does not work without half of its filters and neurons "
            f"({reason}); {FIXES_SIZES}"
        ) from error
    agrees = len(outputs) == len(expected) and all(map(_same, outputs, expected))
    if not agrees:
        raise UserError(
            "without half of its filters and neurons the model computes something "
            f"else than with these zero; {FIXES_SIZES}"
        )


def _outputs_of_part(model, x, kept, sample):
    """The outputs of the model, bound to ``x (P,)``, with 0 off ``kept (P,) bool``."""
    before = x.clone()
    try:
        x.mul_(kept.to(x.device))
        return _outputs(model, sample)
    finally:
        x.copy_(before)


def _outputs(model, sample):
    """The tensors that a model puts out for a sample, in evaluation mode."""
    with torch.no_grad(), mode(model, training=False):
        return all_of(model(sample))


def _same(a, b):
    """Whether two tensors agree up to rounding."""
    if a.shape != b.shape:
        return False
    largest = float(b.abs().max())
    return torch.allclose(a, b, rtol=SAME, atol=SAME * largest)
