"""Finds the filters and neurons of a model that can be cut, and builds the smaller network without some of them.

They are found in one forward pass of two samples in evaluation mode. Beside every activation goes a
tensor of the same shape that says which unit each value comes from, its *labels*. A convolution or
linear layer reads the labels of its input and gives its outputs new ones; what moves values moves
labels, and what adds values makes their units one. Where an operation is none of those known here,
the units that it sees are never cut: a model that is only partly understood is cut where it is.

Never cut are the model's outputs, what grouped convolutions other than depthwise ones see, what
layer norm, group norm and attention mix, channels that are dealt out again (chunk, channel shuffle),
and layers with frozen or shared-with-a-table weights. A model whose own code fixes a width, as in
``x.view(-1, 320)``, is refused: ``check`` cuts half of everything and compares.
"""

import copy
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fedmpi.core.errors import UserError
from fedmpi.core.layout import Layout
from fedmpi.core.units import FIXED, Axis, Structure, by_layer, held, small_layout
from fedmpi.core.support import gathered, index_of, scattered
from fedmpi.core.tensors import mode, tensors_in

SAME = 1e-4      # of the largest output: what two ways to compute it may differ by

# By the names of torch's functions and methods, without underscores at either end.
POINTWISE = frozenset("""relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish softplus tanh sigmoid hardsigmoid
    hardswish abs neg exp square sqrt pow clamp clone detach contiguous to float type_as identity
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout stochastic_depth""".split())
TOGETHER = frozenset("add iadd radd sub isub rsub mul imul rmul div truediv itruediv maximum minimum".split())
MOVES = frozenset("""flatten view reshape permute transpose movedim squeeze unsqueeze cat concat concatenate chunk split
    getitem narrow expand""".split())
POOLS = frozenset(f"{how}_pool{dims}d" for how in ("max", "avg", "adaptive_avg", "adaptive_max") for dims in "123")
REDUCTIONS = frozenset("mean sum amax amin".split())
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
NORMS = frozenset({"batch_norm", "instance_norm"})


def trace(model, layout, sample):
    """The ``Structure`` of a model that is bound to a vector of ``layout``, seen on ``sample (2, ...)``. The model is
    left as it was. UserError where it has no unit that can be cut."""
    watch = _Trace(model, layout)
    with torch.no_grad(), mode(model, training=False):
        with watch:
            outputs = model(sample)
    watch.pin(_all(outputs), "they are the model's outputs")
    structure = watch.structure()
    if not structure.layers:
        reasons = "; ".join(f"{name}: {why}" for name, why in structure.whole.items())
        raise UserError(f"the model has no filters or neurons that can be cut ({reasons or 'it has no such layer'})")
    return structure


class _Trace(TorchFunctionMode):
    """Sees operations. ``labels`` is {id(tensor): (tensor, its labels)}; label 0 is what is never cut. ``parent`` joins
    labels to units. ``axes`` is {(slot's name, dim): (slot, labels, role)}."""

    def __init__(self, model, layout):
        super().__init__()
        self.layout = layout
        slots = {slot.name: slot for slot in layout.slots}
        named = [*model.named_parameters(), *model.named_buffers()]
        self.slots = {id(tensor): slots[name] for name, tensor in named if name in slots}
        self.labels, self.parent, self.axes = {}, [0], {}
        self.makers = {}          # name of a module: labels of the units that it makes
        self.pinned = {}          # label: why
        self.odd = {}             # slot's name: the operation that uses it in a way not known here

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        seen = [tensor for tensor in tensors_in([args, kwargs]) if id(tensor) in self.labels]
        before = {id(tensor): self.labels[id(tensor)][1] for tensor in seen}
        result = function(*args, **kwargs)
        name = getattr(function, "__name__", str(function)).strip("_")
        rule = self._rule(name)
        parameters = [tensor for tensor in tensors_in([args, kwargs]) if id(tensor) in self.slots]
        if rule in (self._convolution, self._linear, self._norm):
            rule(result, *args, **kwargs)
        elif not tensors_in(result) or not (seen or parameters):
            return result
        elif rule is None or parameters:
            self._unknown(name, before, parameters)
        else:
            rule(result, function, args, kwargs, before)
        return result

    def _rule(self, name):
        if name in CONVOLUTIONS:
            return self._convolution
        if name == "linear":
            return self._linear
        if name in NORMS:
            return self._norm
        kinds = ((POINTWISE, self._pointwise), (TOGETHER, self._together), (MOVES, self._moved), (POOLS, self._pooled),
                 (REDUCTIONS, self._reduced))
        return next((rule for names, rule in kinds if name in names), None)

    # --- layers with weights ---

    def _convolution(self, result, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        if groups == 1:
            self._layer(result, input, weight, bias, dim=1)
            return
        line = self._line(input, 1)
        slot = self.slots.get(id(weight))
        if groups != len(line) or slot is None:
            self._pin(line, "a convolution in groups reads them")
            return
        # Depthwise: what leaves a channel is still the unit that came in.
        line = line.repeat_interleave(len(weight) // groups)
        self._along(weight, 0, line, "other")
        self._along(bias, 0, line, "other")
        self._give(result, line, 1)

    def _linear(self, result, input, weight, bias=None):
        self._layer(result, input, weight, bias, dim=input.ndim - 1)

    def _layer(self, result, input, weight, bias, dim):
        """A layer that reads the units along ``dim`` of its input, and makes new ones along that of its output."""
        read = self._line(input, dim)
        slot = self.slots.get(id(weight))
        if slot is None:
            self._pin(read, "they are read by a weight that is frozen or computed")
            return
        name = slot.name.rpartition(".")[0] or slot.name
        made = self._new(len(weight))
        self.makers[name] = made if name not in self.makers else torch.cat([self.makers[name], made])
        self._along(weight, 1, read, "input")
        self._along(weight, 0, made, "weight")
        self._along(bias, 0, made, "bias")
        self._give(result, made, dim)

    def _norm(self, result, input, running_mean=None, running_var=None, weight=None, bias=None, *args, **kwargs):
        line = self._line(input, 1)
        self._along(weight, 0, line, "norm")
        for tensor in (bias, running_mean, running_var):
            self._along(tensor, 0, line, "other")
        self._give(result, line, 1)

    # --- operations without weights ---

    def _pointwise(self, result, function, args, kwargs, before):
        labels = next(iter(before.values()))
        if len(before) > 1 or result.shape != labels.shape:
            self._unknown(function.__name__, before)
            return
        self._set(result, labels)

    def _together(self, result, function, args, kwargs, before):
        """Values that are added or multiplied belong to one unit; numbers change none."""
        given = [tensor for tensor in tensors_in(args[:2]) if tensor.numel() > 1 or id(tensor) in before]
        labels = [before.get(id(tensor)) for tensor in given]
        if any(each is None for each in labels):
            self._unknown(f"{function.__name__} of a tensor that is no activation", before)
            return
        first, *others = [each.expand(result.shape) for each in labels]
        for other in others:
            self._join(first, other)
        self._set(result, first)

    def _moved(self, result, function, args, kwargs, before):
        """Labels move as their values do; none may be lost, and all must still lie along one dimension."""
        name = function.__name__
        if _picks(name, args, kwargs):
            self._unknown(f"{name} of some", before)
            return

        def shadow(value):
            if isinstance(value, torch.Tensor):
                none = torch.zeros(value.shape, dtype=torch.int64)
                return before.get(id(value), none).contiguous()
            if isinstance(value, (list, tuple)) and tensors_in(value):
                return type(value)(shadow(each) for each in value)
            return value

        moved = function(*shadow(args), **{key: shadow(value) for key, value in kwargs.items()})
        came = set().union(*(each.unique().tolist() for each in before.values()))
        for output, labels in zip(tensors_in(result), tensors_in(moved)):
            whole = came <= set(labels.unique().tolist())
            if not whole or _varying(labels) > 1:
                self._unknown(f"{name} across channels", before)
                return
        for output, labels in zip(tensors_in(result), tensors_in(moved)):
            self._set(output, labels)

    def _pooled(self, result, function, args, kwargs, before):
        line = self._line(args[0] if args else kwargs["input"], 1)
        for output in tensors_in(result):
            self._give(output, line, 1)

    def _reduced(self, result, function, args, kwargs, before):
        """A mean over places that all belong to one unit."""
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        keepdim = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
        labels = next(iter(before.values()))
        if dims is None or len(before) > 1 or not isinstance(result, torch.Tensor):
            self._unknown(function.__name__, before)
            return
        low, high = labels.amin(dims, keepdim), labels.amax(dims, keepdim)
        if torch.equal(low, high):
            self._set(result, low)
        else:
            self._unknown(f"{function.__name__} over channels", before)

    def _unknown(self, name, before, parameters=()):
        for labels in before.values():
            self._pin(labels, f"{name} uses them")
        for tensor in parameters:
            self.odd[self.slots[id(tensor)].name] = f"{name} uses their weights"

    # --- labels ---

    def pin(self, tensors, why):
        """Never cut what these tensors hold."""
        for tensor in tensors:
            if id(tensor) in self.labels:
                self._pin(self.labels[id(tensor)][1], why)

    def _pin(self, labels, why):
        for label in labels.unique().tolist():
            self.pinned.setdefault(label, why)

    def _new(self, count):
        start = len(self.parent)
        self.parent += range(start, start + count)
        return torch.arange(start, start + count)

    def _set(self, tensor, labels):
        self.labels[id(tensor)] = tensor, labels

    def _give(self, tensor, line, dim):
        """The labels ``line (n,)`` along ``dim`` of a tensor, the same at all other places."""
        shape = [1] * tensor.ndim
        shape[dim] = len(line)
        self._set(tensor, line.view(shape).expand(tensor.shape))

    def _line(self, tensor, dim):
        """(n,) labels along ``dim``; all 0 where they are not the same at all other places."""
        nothing = torch.zeros(tensor.shape[dim], dtype=torch.int64)
        if id(tensor) not in self.labels:
            return nothing
        labels = self.labels[id(tensor)][1].movedim(dim, 0)
        line = labels.reshape(len(labels), -1)[:, 0] if labels.numel() else nothing
        if bool((labels == line.view(-1, *[1] * (labels.ndim - 1))).all()):
            return line
        self._pin(labels, "a layer reads them along another dimension")
        return nothing

    def _along(self, tensor, dim, line, role):
        """Note that the labels ``line`` lie along a dimension of a parameter or statistic."""
        if tensor is None:
            return
        slot = self.slots.get(id(tensor))
        if slot is None:
            self._pin(line, "a layer of theirs has frozen or computed values")
        elif (slot.name, dim) in self.axes:
            self._join(self.axes[slot.name, dim][1], line)         # a layer that is used twice
        else:
            self.axes[slot.name, dim] = slot, line, role

    def _join(self, a, b):
        """Make the labels at the same places of ``a`` and ``b`` one unit."""
        count = len(self.parent)
        for pair in (a * count + b).unique().tolist():
            first, second = self._root(pair // count), self._root(pair % count)
            self.parent[max(first, second)] = min(first, second)

    def _root(self, label):
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    # --- the result ---

    def structure(self):
        """The ``Structure`` of what was seen."""
        for slot, line, _ in self.axes.values():
            if slot.name in self.odd:
                self._pin(line, self.odd[slot.name])
        root = torch.tensor([self._root(label) for label in range(len(self.parent))])
        why = {int(root[label]): reason for label, reason in self.pinned.items()}
        layers, whole, unit_of = {}, {}, torch.full((len(root),), FIXED)
        for names, units in self._groups(root):
            reason = next((why[unit] for unit in units if unit in why), None)
            if 0 in units:
                reason = reason or "they are added to what is never cut"
            if len(units) < 2:
                reason = reason or "there is only one"
            if reason:
                whole |= dict.fromkeys(names, reason)
                continue
            unit_of[torch.tensor(units)] = torch.arange(len(units)) + sum(layers.values())
            layers[names[0]] = len(units)
        axes = [Axis(slot, dim, unit_of[root[line]], role) for (_, dim), (slot, line, role) in self.axes.items()]
        return Structure(self.layout, layers, tuple(axis for axis in axes if bool((axis.units != FIXED).any())), whole)

    def _groups(self, root):
        """``[(names of modules, units)]``: modules that make some unit together share all of theirs."""
        groups = []
        for name, labels in self.makers.items():
            names, units = [name], list(dict.fromkeys(root[labels].tolist()))
            touching = [group for group in groups if not set(group[1]).isdisjoint(units)]
            for other_names, other_units in reversed(touching):
                names, units = other_names + names, list(dict.fromkeys(other_units + units))
            groups = [group for group in groups if group not in touching] + [(names, units)]
        order = list(self.makers)
        return sorted(groups, key=lambda group: order.index(group[0][0]))


def _picks(name, args, kwargs):
    """Whether what is moved depends on numbers that another number of channels would change."""
    if name == "__getitem__":
        places = args[1] if isinstance(args[1], tuple) else (args[1],)
        return not all(isinstance(place, (slice, int, type(None), type(...))) for place in places)
    return name == "squeeze" and len(args) + len(kwargs) == 1      # also drops a single channel that is left


def _varying(labels):
    """Along how many dimensions labels differ."""
    first = [labels.narrow(dim, 0, 1) for dim in range(labels.ndim)]
    return sum(not bool((labels == each).all()) for each in first)


class Cut(NamedTuple):
    """A smaller network, bound to a vector of its own."""

    model: nn.Module
    layout: Layout
    x: torch.Tensor               # (P',) the model's own vector
    g: torch.Tensor               # (R',) its gradient
    support: torch.Tensor         # (K,) int32, sorted: where its values lie in the whole model's vector
    places: torch.Tensor          # (K,) int32, sorted: where they lie in its own

    def down(self, x):
        """Take the values of the whole model's ``x (P,)``."""
        scattered(gathered(x, self.support), self.places, self.x)

    def up(self, values, into):
        """``into (P,)``, with the values of ``values (P',)`` written to where they lie in the whole model's vector."""
        return scattered(gathered(values, self.places), self.support, into)


def cut(model, structure, units):
    """The ``Cut`` of ``model`` that keeps ``units (U,) bool``; its vector is zero until it is filled. It shares frozen
    parameters, constants and counters with ``model``, which is left as it is."""
    layout, device = small_layout(structure, units), next(model.parameters()).device
    x, g = torch.zeros(layout.P, device=device), torch.zeros(layout.R, device=device)
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    # A copy of the module takes these for copies of its tensors.
    copies = {id(tensor): tensor for tensor in tensors.values()}
    for slot in layout.slots:
        # By .data each has a version of its own: statistics move between forward and backward pass.
        small = x[slot.span].view(slot.shape).data
        if slot.offset < layout.R:
            small = nn.Parameter(small)
            small.grad = g[slot.span].view(slot.shape)
        copies[id(tensors[slot.name])] = small
    smaller = copy.deepcopy(model, copies)
    for module in smaller.modules():
        _resize(module)
    support = torch.from_numpy(index_of(held(structure, units).numpy())).to(device)
    places = torch.from_numpy(index_of(layout.real.numpy())).to(device)
    return Cut(smaller, layout, x, g, support, places)


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
        sized = [tensor for tensor in (module.weight, module.running_mean) if tensor is not None]
        module.num_features = len(sized[0]) if sized else module.num_features


def check(model, structure, x, sample):
    """UserError where the network without every other unit, on ``sample (n, ...)``, is not the whole one with these
    units zero. ``x (P,)`` is the vector to which ``model`` is bound; both are left as they were."""
    units = torch.cat([torch.arange(count) % 2 == 0 for count in structure.layers.values()])
    smaller, before = cut(model, structure, units), x.clone()
    smaller.down(x)
    try:
        x.mul_(held(structure, units).to(x.device))
        expected = _outputs(model, sample)
    finally:
        x.copy_(before)
    advice = "the model's own code may fix the number of channels: flatten by x.flatten(1), not to a number"
    try:
        found = _outputs(smaller.model, sample)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"the model does not work without half of its units ({str(error).splitlines()[0]}); "
                        f"{advice}") from error
    same = len(found) == len(expected) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=SAME, atol=SAME * float(b.abs().max()))
        for a, b in zip(found, expected))
    if not same:
        raise UserError(f"without half of its units the model computes something else than with these zero; {advice}")


def _outputs(model, sample):
    with torch.no_grad(), mode(model, training=False):
        return _all(model(sample))


def _all(outputs):
    """The tensors that a model puts out: one, a nest of them, or the attributes of an object."""
    plain = isinstance(outputs, (torch.Tensor, list, tuple, dict))
    return tensors_in(outputs if plain else vars(outputs))
