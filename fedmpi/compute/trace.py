"""Finds a model's filters and neurons for cutting: its ``fedmpi.core.units.Structure``.

Two samples go through the model in evaluation mode. Beside every activation goes a tensor of the
same shape, its *labels*: they name the unit of each value. A convolution or linear layer reads the
labels of its input and gives its outputs new ones. An operation moves labels as it moves values;
an addition of values makes their units one. Any other operation pins its units, so they are never
cut: a partly understood model is cut in its understood parts.

These stay whole: the model's outputs; inputs of grouped convolutions, other than depthwise ones;
channels that layer norm, group norm or attention mix; channels that are split or shuffled; and
units on either side of a layer with frozen or computed weights.
"""

import torch
from torch.overrides import TorchFunctionMode

from fedmpi.core.errors import UserError
from fedmpi.core.tensors import mode, tensors_in
from fedmpi.core.units import FIXED, Axis, Structure

# Torch's functions call their first argument `input`, also as a keyword.
# ruff: noqa: A002


def _names(text):
    """The names in a text with spaces between them."""
    return frozenset(text.split())


# By the names of torch's functions and methods, without underscores at either end.
POINTWISE = _names("""
    relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish softplus tanh sigmoid hardsigmoid
    hardswish abs neg exp square sqrt pow clamp clone detach contiguous to float type_as dropout
    dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout stochastic_depth
    """)
TOGETHER = _names("""
    add iadd radd sub isub rsub mul imul rmul div truediv itruediv maximum minimum
    """)
MOVES = _names("""
    flatten view reshape permute transpose movedim squeeze unsqueeze cat concat concatenate chunk
    split getitem narrow expand
    """)
POOLS = _names("""
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    """)
REDUCTIONS = frozenset({"mean", "sum", "amax", "amin"})
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
NORMS = frozenset({"batch_norm", "instance_norm"})

# Indices that pick no single channels.
PLAIN_PLACES = (slice, int, type(...))
# The label of values that are never cut.
WHOLE = 0


def trace(model, layout, sample):
    """The ``Structure`` of a model that is bound to a vector of ``layout``.

    It is seen on ``sample (2, ...)``; other samples are taken to go the same way. The model is left
    as it was. UserError if it has no unit that can be cut.
    """
    watch = _Trace(model, layout)
    with torch.no_grad(), mode(model, training=False), watch:
        outputs = model(sample)
    watch.pin(all_of(outputs), "they are the model's outputs")
    structure = watch.structure()
    if not structure.layers:
        lines = [f"{name}: {why}" for name, why in structure.whole.items()]
        reasons = "; ".join(lines) or "it has no convolution or linear layer"
        raise UserError(f"the model has no filters or neurons that can be cut ({reasons})")
    return structure


def all_of(outputs):
    """The tensors of a model's outputs: one, a nest of them, or the attributes of an object."""
    if isinstance(outputs, (torch.Tensor, list, tuple, dict)):
        return tensors_in(outputs)
    return tensors_in(vars(outputs))


class _Trace(TorchFunctionMode):
    """Sees operations, and keeps the labels of their inputs and outputs."""

    def __init__(self, model, layout):
        super().__init__()
        self.layout = layout
        slots = {slot.name: slot for slot in layout.slots}
        # id(parameter or statistic) -> its slot
        self.slots = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name in slots:
                self.slots[id(tensor)] = slots[name]
        # id(tensor) -> (tensor, its labels)
        self.labels = {}
        # label -> a smaller label of the same unit, or itself if it is the least.
        self.parent = [WHOLE]
        # (slot's name, dim) -> (slot, labels, role)
        self.axes = {}
        # name of a module -> labels of the units that it makes
        self.makers = {}
        # label -> why it is never cut
        self.pinned = {}
        # slot's name -> the operation that uses it in a way of its own
        self.odd = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Labels are looked up first, as operations in place change their inputs.
        before, parameters = {}, []
        for tensor in tensors_in([args, kwargs]):
            if id(tensor) in self.labels:
                _, before[id(tensor)] = self.labels[id(tensor)]
            if id(tensor) in self.slots:
                parameters.append(tensor)
        result = function(*args, **kwargs)
        touched = before or parameters
        if touched and tensors_in(result):
            self._see(function, args, kwargs, before, parameters, result)
        return result

    def _see(self, function, args, kwargs, before, parameters, result):
        """Follow labels through an operation.

        ``before`` is {id(input): its labels}, ``parameters`` the parameters and statistics among
        the inputs.
        """
        name = function.__name__.strip("_")
        if name in CONVOLUTIONS:
            self._convolution(result, *args, **kwargs)
        elif name == "linear":
            self._linear(result, *args, **kwargs)
        elif name in NORMS:
            self._norm(result, *args, **kwargs)
        elif parameters:
            self._unknown(name, before, parameters)
        elif name in POINTWISE:
            self._pointwise(name, before, result)
        elif name in TOGETHER:
            self._together(name, args, before, result)
        elif name in MOVES:
            self._moved(function, args, kwargs, before, result)
        elif name in POOLS:
            self._pooled(result, *args, **kwargs)
        elif name in REDUCTIONS:
            self._reduced(name, before, result, *args, **kwargs)
        else:
            self._unknown(name, before)

    # --- layers with weights ---

    def _convolution(self, result, input, weight, bias=None, stride=1, padding=0, dilation=1,
                     groups=1):
        if groups == 1:
            self._layer(result, input, weight, bias, dim=1)
            return
        line = self._line(input, 1)
        if groups != len(line):
            self._pin(line, "a convolution in groups reads them")
            return
        # Depthwise: the outputs of a channel are still its unit.
        line = line.repeat_interleave(len(weight) // groups)
        self._along(weight, 0, line, "other")
        self._along(bias, 0, line, "other")
        self._give(result, line, 1)

    def _linear(self, result, input, weight, bias=None):
        self._layer(result, input, weight, bias, dim=input.ndim - 1)

    def _layer(self, result, input, weight, bias, dim):
        """A layer that reads units along ``dim``, and makes new ones along its output's ``dim``."""
        read = self._line(input, dim)
        slot = self.slots.get(id(weight))
        if slot is None:
            self._pin(read, "they are read by a weight that is frozen or computed")
            return
        made = self._new(len(weight))
        name = slot.name.rpartition(".")[0] or slot.name
        earlier = self.makers.get(name, made[:0])
        self.makers[name] = torch.cat([earlier, made])
        self._along(weight, 1, read, "input")
        self._along(weight, 0, made, "weight")
        self._along(bias, 0, made, "bias")
        self._give(result, made, dim)

    def _norm(self, result, input, running_mean=None, running_var=None, weight=None, bias=None,
              *args, **kwargs):
        line = self._line(input, 1)
        self._along(weight, 0, line, "norm")
        for tensor in (bias, running_mean, running_var):
            self._along(tensor, 0, line, "other")
        self._give(result, line, 1)

    # --- operations without weights ---

    def _pointwise(self, name, before, result):
        labels = next(iter(before.values()))
        if len(before) > 1 or result.shape != labels.shape:
            self._unknown(name, before)
        else:
            self._set(result, labels)

    def _together(self, name, args, before, result):
        """Values that are added or multiplied belong to one unit; a number changes none."""
        operands = []
        for tensor in tensors_in(args[:2]):
            if id(tensor) in before:
                operands.append(before[id(tensor)].expand(result.shape))
            elif tensor.numel() > 1:
                self._unknown(f"{name} of a tensor that is no activation", before)
                return
        first, *others = operands
        for other in others:
            self._join(first, other)
        self._set(result, first)

    def _moved(self, function, args, kwargs, before, result):
        """Labels move as values do. All must come out, and still lie along one dimension."""
        name = function.__name__.strip("_")
        if _picks(name, args, kwargs):
            self._unknown(f"{name} of some", before)
            return
        label_args = _with_labels(args, before)
        label_kwargs = {key: _with_labels(value, before) for key, value in kwargs.items()}
        moved = tensors_in(function(*label_args, **label_kwargs))
        came = set()
        for labels in before.values():
            came |= _distinct(labels)
        for labels in moved:
            lost = came - _distinct(labels)
            if lost or _varying(labels) > 1:
                self._unknown(f"{name} across channels", before)
                return
        for output, labels in zip(tensors_in(result), moved):
            self._set(output, labels)

    def _pooled(self, result, input, *args, **kwargs):
        line = self._line(input, 1)
        for output in tensors_in(result):
            self._give(output, line, 1)

    def _reduced(self, name, before, result, input, dim=None, keepdim=False, **kwargs):
        """A mean over places that all belong to one unit."""
        if dim is None or id(input) not in before:
            self._unknown(name, before)
            return
        labels = before[id(input)]
        low = labels.amin(dim, keepdim)
        high = labels.amax(dim, keepdim)
        if torch.equal(low, high):
            self._set(result, low)
        else:
            self._unknown(f"{name} over channels", before)

    def _unknown(self, name, before, parameters=()):
        """Pin the inputs of an operation that is not understood."""
        for labels in before.values():
            self._pin(labels, f"{name} uses them")
        for tensor in parameters:
            slot = self.slots[id(tensor)]
            self.odd[slot.name] = f"{name} uses their weights"

    # --- labels ---

    def pin(self, tensors, why):
        """Never cut the units of these tensors."""
        for tensor in tensors:
            if id(tensor) in self.labels:
                self._pin(self.labels[id(tensor)][1], why)

    def _pin(self, labels, why):
        for label in _distinct(labels):
            self.pinned.setdefault(label, why)

    def _new(self, count):
        """(count,): labels of new units."""
        start = len(self.parent)
        self.parent += range(start, start + count)
        return torch.arange(start, start + count)

    def _set(self, tensor, labels):
        # The tensor is kept, so that no other one comes under its id.
        self.labels[id(tensor)] = tensor, labels

    def _give(self, tensor, line, dim):
        """Lay the labels ``line (n,)`` along ``dim`` of a tensor, the same at all other places."""
        shape = [1] * tensor.ndim
        shape[dim] = len(line)
        self._set(tensor, line.view(shape).expand(tensor.shape))

    def _line(self, tensor, dim):
        """(n,) labels along ``dim``; WHOLE if they are not the same at all other places."""
        whole = torch.full((tensor.shape[dim],), WHOLE)
        if id(tensor) not in self.labels:
            return whole
        _, labels = self.labels[id(tensor)]
        labels = labels.movedim(dim, 0).reshape(len(whole), -1)
        line = labels[:, 0]
        if bool((labels == line[:, None]).all()):
            return line
        self._pin(labels, "a layer reads them along another dimension")
        return whole

    def _along(self, tensor, dim, line, role):
        """Note that the labels ``line`` lie along a dimension of a parameter or statistic."""
        if tensor is None:
            return
        slot = self.slots.get(id(tensor))
        if slot is None:
            self._pin(line, "a layer of theirs has frozen or computed values")
        elif (slot.name, dim) in self.axes:
            # The layer is used twice.
            _, earlier_line, _ = self.axes[slot.name, dim]
            self._join(earlier_line, line)
        else:
            self.axes[slot.name, dim] = slot, line, role

    def _join(self, a, b):
        """Make the labels at the same places of ``a`` and ``b`` one unit."""
        count = len(self.parent)
        # One number for each pair of labels, so that each pair is looked at once.
        pairs = a * count + b
        for pair in pairs.unique().tolist():
            label_a, label_b = divmod(pair, count)
            roots = self._root(label_a), self._root(label_b)
            self.parent[max(roots)] = min(roots)

    def _root(self, label):
        """The least label of the same unit."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    # --- the result ---

    def structure(self):
        """The ``Structure`` of the model, once all its operations were seen."""
        for slot, line, _ in self.axes.values():
            if slot.name in self.odd:
                self._pin(line, self.odd[slot.name])
        num_labels = len(self.parent)
        roots = torch.tensor([self._root(label) for label in range(num_labels)])
        why = {int(roots[label]): reason for label, reason in self.pinned.items()}

        layers, whole = {}, {}
        unit_of = torch.full((num_labels,), FIXED)
        num_units = 0
        for names, units in self._groups(roots):
            reason = _reason(units, why)
            if reason:
                whole |= dict.fromkeys(names, reason)
                continue
            count = len(units)
            numbers = torch.arange(num_units, num_units + count)
            unit_of[torch.tensor(units)] = numbers
            layers[names[0]] = count
            num_units += count
        axes = self._axes(unit_of[roots])
        return Structure(self.layout, layers, axes, whole)

    def _axes(self, unit_of):
        """The ``Axis`` of each dimension with units, by ``unit_of (labels,)``, a unit or FIXED."""
        axes = []
        for (_, dim), (slot, line, role) in self.axes.items():
            units = unit_of[line]
            if bool((units != FIXED).any()):
                axes.append(Axis(slot, dim, units, role))
        return tuple(axes)

    def _groups(self, roots):
        """``[(names of modules, units)]``: modules that share a unit are cut together."""
        groups = []
        for name, labels in self.makers.items():
            names = [name]
            # A dict for a set that keeps its order.
            units = dict.fromkeys(roots[labels].tolist())
            apart, touching = [], []
            for group in groups:
                if group[1].keys() & units.keys():
                    touching.append(group)
                else:
                    apart.append(group)
            for other_names, other_units in reversed(touching):
                names = other_names + names
                units = other_units | units
            groups = [*apart, (names, units)]
        order = list(self.makers)
        groups.sort(key=lambda group: order.index(group[0][0]))
        return [(names, list(units)) for names, units in groups]


def _reason(units, why):
    """The reason why units are never cut, empty if they can be."""
    for unit in units:
        if unit in why:
            return why[unit]
    if WHOLE in units:
        return "they are added to what is never cut"
    if len(units) == 1:
        return "there is only one"
    return ""


def _distinct(labels):
    """The set of labels."""
    return set(labels.unique().tolist())


def _with_labels(value, before):
    """The arguments of a move with labels in place of tensors, WHOLE for tensors without any."""
    if isinstance(value, torch.Tensor):
        whole = torch.full(value.shape, WHOLE)
        return before.get(id(value), whole).contiguous()
    if isinstance(value, (list, tuple)) and tensors_in(value):
        return type(value)(_with_labels(part, before) for part in value)
    return value


def _picks(name, args, kwargs):
    """Whether a move depends on numbers that another number of channels would change."""
    if name == "getitem":
        places = args[1]
        if not isinstance(places, tuple):
            places = (places,)
        return not all(place is None or isinstance(place, PLAIN_PLACES) for place in places)
    # Without a dimension it would also drop the last channel that is left.
    return name == "squeeze" and len(args) + len(kwargs) == 1


def _varying(labels):
    """The number of dimensions along which labels differ."""
    count = 0
    for dim in range(labels.ndim):
        first = labels.narrow(dim, 0, 1)
        if not torch.equal(labels, first.expand_as(labels)):
            count += 1
    return count
