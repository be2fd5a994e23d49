"""The costs of training in counted operations, not in measured time.

One forward pass is watched as torch dispatches it. Every product in it is counted by the formulas
of ``torch.utils.flop_counter``, two operations for a multiplication with its addition. The module
behind a product plays no role: linear layers, convolutions, attention, recurrent layers, or a
function called on a parameter.

A product with a prunable weight counts for this weight, and costs less as the weight's mask gets
sparser. All other products cost the same under any mask: products with dense or frozen parameters,
and products of activations with each other, as in attention.
"""

import bisect
import contextlib
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from fedmpi.core.adapters import base_buffers
from fedmpi.core.logits import Logits
from fedmpi.core.tensors import mode, tensors_in

ADDS_ITS_FIRST_ARGUMENT = (torch.ops.aten.addmm, torch.ops.aten.baddbmm)


class Costs(NamedTuple):
    """The costs of one sample's forward pass."""

    # Floats, in the order of layout.weights: multiplications of each weight.
    macs_per_weight: tuple
    # FLOPs with dense parameters, and of activations with each other.
    dense: float = 0.0
    # FLOPs with parameters that are not trained.
    frozen: float = 0.0


def costs(model, layout, sample):
    """The ``Costs`` of ``model`` for ``sample (1, ...)``, in evaluation mode.

    The model is bound to a vector of ``layout``.
    """
    flops = _watched(model, sample).flops
    macs_per_weight = []
    for slot in layout.weights:
        # Two operations a use.
        of_slot = flops.pop(slot.name, 0)
        macs_per_weight.append(of_slot / (2 * slot.size))
    frozen = 0
    names = [name for name, _ in layout.frozen]
    for name in (*names, *layout.base):
        frozen += flops.pop(name, 0)
    dense = sum(flops.values())
    return Costs(tuple(macs_per_weight), float(dense), float(frozen))


def forward(layout, costs, mask):
    """FLOPs of one sample's forward pass on ``mask``."""
    sparse = _by_mask(costs, layout.kept(mask))
    return sparse + costs.dense + costs.frozen


def training(layout, costs, mask, seen, extra, dense):
    """``(prunefl, rigl)``: FLOPs of training ``seen`` samples on ``mask``, in two ways to charge.

    ``extra`` samples went through a dense-gradient pass of their own, and ``dense`` of the seen
    ones had a dense weight gradient.

    PruneFL and the thesis charge a forward pass and the input gradient at the layer's density, and
    the weight gradient as dense. RigL charges all three at the density, and each dense gradient
    taken. Both charge all other products three times, and frozen ones twice, as these need no
    weight gradient.
    """
    full = _by_mask(costs, [slot.size for slot in layout.weights])
    sparse = _by_mask(costs, layout.kept(mask))
    passes = seen + extra
    always = passes * (3 * costs.dense + 2 * costs.frozen)
    # A forward pass and an input gradient by the mask, and a dense weight gradient.
    with_dense_gradient = 2 * sparse + full
    prunefl = passes * with_dense_gradient + always
    rigl = seen * 3 * sparse
    rigl += extra * with_dense_gradient
    rigl += dense * (full - sparse)
    rigl += always
    return prunefl, rigl


def _by_mask(costs, kept):
    """FLOPs of one forward pass in the products with prunable weights, ``kept`` of them a layer."""
    macs = 0
    for count, macs_of_one in zip(kept, costs.macs_per_weight):
        macs += count * macs_of_one
    return 2 * macs


def outputs(model, sample):
    """``(all, largest)``: the bytes of all operations' outputs for ``sample (1, ...)``.

    They are the sum and the largest output. Views take no memory, and no gradient needs integers:
    neither is counted. Of the modules ``model.recomputed``, if it has some, training holds one at a
    time, beside the output of each.
    """
    watch = _Watch(model)
    with _spans(watch, getattr(model, "recomputed", ())) as spans:
        # Attention's own kernel: as products it would hold a matrix of tokens by tokens.
        _pass(watch, model, sample, attention=False)
    output_bytes = watch.output_bytes
    total = sum(output_bytes)
    within = []
    for start, stop in spans:
        # The last output is the module's own.
        within.append(sum(output_bytes[start: stop - 1]))
    held = total - sum(within) + max(within, default=0)
    return held, max(output_bytes, default=0)


@contextlib.contextmanager
def _spans(watch, modules):
    """A list of the pair (start, stop) of each module's passes among ``watch.output_bytes``."""
    spans, starts, hooks = [], [], []

    def enters(module, inputs):
        starts.append(len(watch.output_bytes))

    def leaves(module, inputs, result):
        spans.append((starts.pop(), len(watch.output_bytes)))

    for module in modules:
        hooks.append(module.register_forward_pre_hook(enters))
        hooks.append(module.register_forward_hook(leaves))
    try:
        yield spans
    finally:
        for hook in hooks:
            hook.remove()


def _watched(model, sample):
    """A ``_Watch``, after ``sample`` went through the model in evaluation mode."""
    watch = _Watch(model)
    outputs = _pass(watch, model, sample)
    if isinstance(outputs, Logits):
        with torch.no_grad(), watch:
            # The loss computes them, once as well.
            outputs.whole()
    return watch


def _pass(watch, model, sample, attention=True):
    """The outputs of ``sample`` in evaluation mode, seen by the watch.

    ``attention``: it is computed as products.
    """
    with torch.no_grad(), mode(model, training=False), _plain_kernels(attention), watch:
        return model(sample)


@contextlib.contextmanager
def _plain_kernels(attention):
    """Recurrent layers, and ``attention``, as products, since fused kernels hide their products."""
    # The fast path of attention, and oneDNN's recurrent layers, are fused kernels.
    mha, mkldnn = torch.backends.mha, torch.backends.mkldnn
    fast_attention = mha.get_fastpath_enabled()
    fast_layers = mkldnn.enabled
    mha.set_fastpath_enabled(False)
    mkldnn.enabled = False
    try:
        kernels = sdpa_kernel(SDPBackend.MATH) if attention else contextlib.nullcontext()
        with kernels, torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        mha.set_fastpath_enabled(fast_attention)
        mkldnn.enabled = fast_layers


class _Watch(TorchDispatchMode):
    """Sees operations.

    ``flops`` is {parameter's name: FLOPs}, and under None the products of activations with each
    other. ``output_bytes`` is a list, an entry for each output in memory of its own.

    A tensor's sources are the parameters that alone make it: the source of a weight's view or copy
    is the weight. A tensor made from the sample has none.
    """

    @classmethod
    def _should_skip_dynamo(cls):
        """False: else the first operation seen imports all of torch's compiler, more than a second
        of processor time a run."""
        return False

    def __init__(self, model):
        # Here, since it imports triton, and workers watch no model.
        from torch.utils.flop_counter import flop_registry
        super().__init__()
        self.formulas = flop_registry
        self.flops, self.output_bytes = {}, []
        parameters = list(model.named_parameters())
        buffers = dict(model.named_buffers())
        # Buffers of a base are weights like others.
        weights = parameters + [(name, buffers[name]) for name in base_buffers(model)]
        self.sizes = {name: weight.numel() for name, weight in weights}
        self.homes = _homes([*parameters, *buffers.items()])
        # storage -> set of names
        self.sources = {}
        # All storages, kept: a freed one could come again under the same address.
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        inputs = tensors_in([args, kwargs])
        outputs = tensors_in(result)
        operation = function._overloadpacket
        if operation in self.formulas:
            flops = self.formulas[operation](*args, **kwargs, out_val=result)
            adds = operation in ADDS_ITS_FIRST_ARGUMENT
            self._count(flops, tensors_in(args[1:]) if adds else inputs)
        else:
            self._trace(inputs, outputs)
        self._measure(outputs)
        return result

    def _count(self, flops, factors):
        """Book the FLOPs of a product to the parameters among its ``factors``."""
        candidates = []
        for factor in factors:
            if factor.dim() > 1:
                candidates.append(self._sources_of(factor) or set())
        names = max(candidates, key=self._size, default=set())
        if not names:
            self._book(None, flops)
        size = self._size(names)
        for name in names:
            self._book(name, flops * self.sizes[name] / size)

    def _book(self, name, flops):
        self.flops[name] = self.flops.get(name, 0) + flops

    def _trace(self, inputs, outputs):
        """Note the sources of new tensors that parameters alone make."""
        sources = [self._sources_of(tensor) for tensor in inputs]
        if None in sources:
            return
        for tensor in outputs:
            storage = _storage(tensor)
            if storage not in self.homes:
                self.sources[storage] = set().union(*sources)

    def _measure(self, outputs):
        """Note the sizes of new tensors."""
        for tensor in outputs:
            storage = _storage(tensor)
            if storage in self.storages or storage in self.homes:
                continue
            self.storages[storage] = tensor.untyped_storage()
            if tensor.is_floating_point():
                self.output_bytes.append(tensor.numel() * tensor.element_size())

    def _size(self, names):
        return sum(self.sizes[name] for name in names)

    def _sources_of(self, tensor):
        """The names of the parameters that alone make ``tensor``; None if it needs the sample."""
        storage = _storage(tensor)
        if storage not in self.homes:
            return self.sources.get(storage)
        starts, names = self.homes[storage]
        name = names[bisect.bisect(starts, tensor.storage_offset()) - 1]
        return {name} & self.sizes.keys()


def _homes(named):
    """``{storage: (offsets, names)}``, sorted, of ``[(name, tensor)]``.

    Many tensors may live in one storage.
    """
    places = {}
    for name, tensor in named:
        place = tensor.storage_offset(), name
        places.setdefault(_storage(tensor), []).append(place)
    homes = {}
    for storage, residents in places.items():
        offsets, names = zip(*sorted(residents))
        homes[storage] = offsets, names
    return homes


def _storage(tensor):
    """The identity of a tensor's memory, equal for tensors that share it."""
    return tensor.untyped_storage()._cdata
