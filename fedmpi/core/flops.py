"""What training costs, in counted operations; not in measured time.

One forward pass is watched as torch dispatches it. Every product in it is counted by the formulas of
``torch.utils.flop_counter``, two operations for a multiplication with its addition, whichever module asks for it:
linear layers, convolutions, attention, recurrent layers, or a function called on a parameter.

A product with a prunable weight counts for that weight, and costs less as the weight's mask gets sparser. All other
products cost the same under any mask: those with dense parameters, those with frozen ones, and those of activations
with each other, as in attention.
"""

import bisect
import contextlib
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fedmpi.core.tensors import mode, tensors_in

ADDS_ITS_FIRST_ARGUMENT = (torch.ops.aten.addmm, torch.ops.aten.baddbmm)


class Costs(NamedTuple):
    """What a forward pass of one sample costs."""

    uses: tuple                   # floats in the order of layout.weights: multiplications of each weight
    dense: float = 0.0            # FLOPs with dense parameters, and of activations with each other
    frozen: float = 0.0           # FLOPs with parameters that are not trained


def costs(model, layout, sample):
    """The ``Costs`` of ``model``, bound to a vector of ``layout``, seen on ``sample (1, ...)``, in evaluation mode."""
    flops = _watched(model, sample).flops
    uses = tuple(flops.pop(slot.name, 0) / (2 * slot.size) for slot in layout.weights)
    of_frozen = sum(flops.pop(name, 0) for name, _ in layout.frozen)
    return Costs(uses, float(sum(flops.values())), float(of_frozen))


def forward(layout, costs, mask):
    """FLOPs of one sample's forward pass on ``mask``."""
    return _by_mask(costs, layout.kept(mask)) + costs.dense + costs.frozen


def training(layout, costs, mask, seen, extra, dense):
    """``(prunefl, rigl)``: FLOPs of training ``seen`` samples on ``mask``, ``extra`` in a dense-gradient pass of
    their own and ``dense`` of those seen with a dense weight gradient.

    PruneFL and the thesis charge a forward pass and the input gradient at the layer's density and the weight gradient
    as dense; RigL charges all three at the density, and a dense gradient where one is taken. What no mask thins out is
    charged three times by both, and frozen products twice, as they need no weight gradient.
    """
    full = _by_mask(costs, [slot.size for slot in layout.weights])
    sparse = _by_mask(costs, layout.kept(mask))
    always = (seen + extra) * (3 * costs.dense + 2 * costs.frozen)
    prunefl = (seen + extra) * (2 * sparse + full) + always
    rigl = seen * 3 * sparse + extra * (2 * sparse + full) + dense * (full - sparse) + always
    return prunefl, rigl


def _by_mask(costs, kept):
    """FLOPs of one forward pass in the products with prunable weights, of which ``kept``, one a layer, are left."""
    return sum(2 * count * uses for count, uses in zip(kept, costs.uses))


def outputs(model, sample):
    """``(all, largest)``: bytes that the operations put out for ``sample (1, ...)``, in sum, and the largest of them.

    Views take no memory, and integers none that a gradient needs: neither is counted.
    """
    found = _watched(model, sample).output_bytes
    return sum(found), max(found, default=0)


def _watched(model, sample):
    """The ``_Watch`` that has seen ``sample`` go through the model in evaluation mode."""
    watch = _Watch(model)
    with torch.no_grad(), mode(model, training=False), _plain_kernels(), watch:
        model(sample)
    return watch


@contextlib.contextmanager
def _plain_kernels():
    """Attention and recurrent layers as products, not as fused kernels in which products cannot be seen."""
    mha, mkldnn = torch.backends.mha, torch.backends.mkldnn
    fast_attention, fast_layers = mha.get_fastpath_enabled(), mkldnn.enabled
    mha.set_fastpath_enabled(False)
    mkldnn.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        mha.set_fastpath_enabled(fast_attention)
        mkldnn.enabled = fast_layers


class _Watch(TorchDispatchMode):
    """Sees operations: ``flops`` is {parameter's name: FLOPs}, under None those of activations with each other, and
    ``output_bytes`` a list, one an output in memory of its own.

    A tensor's sources are the parameters that alone make it: of a view or a copy of a weight, the weight. What depends
    on the sample has none.
    """

    def __init__(self, model):
        super().__init__()
        self.flops, self.output_bytes = {}, []
        self.sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        self.homes = _homes([*model.named_parameters(), *model.named_buffers()])
        self.sources = {}         # storage -> set of names
        self.storages = {}        # all that were seen: one that is let go could come again under the same address

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        given, made = tensors_in([args, kwargs]), tensors_in(result)
        operation = function._overloadpacket
        if operation in flop_registry:
            factors = tensors_in(args[1:]) if operation in ADDS_ITS_FIRST_ARGUMENT else given
            self._count(flop_registry[operation](*args, **kwargs, out_val=result), factors)
        else:
            self._trace(given, made)
        self._measure(made)
        return result

    def _count(self, flops, factors):
        """Book the FLOPs of a product to the parameters among its ``factors``."""
        names = max((self._sources_of(factor) or set() for factor in factors if factor.dim() > 1),
                    key=self._size, default=set())
        if not names:
            self.flops[None] = self.flops.get(None, 0) + flops
        for name in names:
            self.flops[name] = self.flops.get(name, 0) + flops * self.sizes[name] / self._size(names)

    def _trace(self, given, made):
        """Note the sources of new tensors that parameters alone make."""
        known = [self._sources_of(tensor) for tensor in given]
        if None in known:
            return
        for tensor in made:
            if _storage(tensor) not in self.homes:
                self.sources[_storage(tensor)] = set().union(*known)

    def _measure(self, made):
        for tensor in made:
            if _storage(tensor) in self.storages or _storage(tensor) in self.homes:
                continue
            self.storages[_storage(tensor)] = tensor.untyped_storage()
            if tensor.is_floating_point():
                self.output_bytes.append(tensor.numel() * tensor.element_size())

    def _size(self, names):
        return sum(self.sizes[name] for name in names)

    def _sources_of(self, tensor):
        """The names of the parameters that alone make ``tensor``; None where it depends on the sample."""
        if _storage(tensor) not in self.homes:
            return self.sources.get(_storage(tensor))
        starts, names = self.homes[_storage(tensor)]
        name = names[bisect.bisect(starts, tensor.storage_offset()) - 1]
        return {name} & self.sizes.keys()


def _homes(named):
    """``{storage: (offsets, names)}``, sorted, of ``[(name, tensor)]``: many tensors may live in one storage."""
    found = {}
    for name, tensor in named:
        found.setdefault(_storage(tensor), []).append((tensor.storage_offset(), name))
    return {storage: tuple(zip(*sorted(places))) for storage, places in found.items()}


def _storage(tensor):
    """What two tensors that share memory have in common."""
    return tensor.untyped_storage()._cdata
