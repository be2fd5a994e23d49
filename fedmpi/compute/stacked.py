"""Local training of G clients of one architecture at once: ``sgd.descend``, side by side.

A small model leaves a GPU waiting for its next kernel, and a CPU for Python. So the clients'
vectors are the rows of one matrix X (G, P), and their gradients the rows of another (G, R). One
step of all clients is one pass through one wide network (grouped convolutions and batched
products, see ``fedmpi.compute.forward``) and one pass of the optimiser over both matrices. Models
without a chain of layers go through ``torch.func.vmap``.

A client's result differs from training one by one by rounding alone, dropout aside: its own
generator deals its batches. Rows stand in order of their number of steps, so the rows still at
work come first. A batch smaller than the widest of its step is filled up with its first sample, at
weight 0 in the loss and in batch statistics. Dropout draws for all rows at once from torch's
generator, seeded by the caller: a client's dropout depends on its neighbours.

Sizes: G clients, a of them still at work, S steps, B samples a step and client.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from fedmpi.compute.forward import ELEMENTWISE, body_rule, chain, through
from fedmpi.compute.sgd import (STATE, deal, learning_rates, length_of, resume, shift_of,
                                states_of)
from fedmpi.core.layout import ALIGN
from fedmpi.core.parts import Descent, Trained
from fedmpi.core.support import count

NORMS = nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm
NO_CHAIN = (
    "the model has statistics that training moves, and is no chain of layers (nn.Sequential with "
    "one nn.Flatten, of convolutions, linear layers, batch norm, pooling, activations and dropout)"
)


class Plan(NamedTuple):
    """The samples of each step; clients stand in ``order`` of falling number of steps."""

    # G positions in the tasks.
    order: list
    # (S, B, G) int64 into the samples of all clients, end to end.
    index: torch.Tensor
    # (S, B, G) float32: 1 / b in a batch of b samples, 0 for filling.
    shares: torch.Tensor
    # (S, G) float32: b, 0 for clients that have finished.
    counts: torch.Tensor
    # (S, B, G, k) int64: augmentation's draws for each sample.
    drawn: torch.Tensor | None
    # S times (clients at work, largest batch, whether all are as large).
    steps: list


class Step(NamedTuple):
    """The facts about a step that a layer may need beside its input."""

    # Steps before it, for a norm that averages by their number.
    number: int
    # (B, a), if batches differ in size.
    shares: torch.Tensor | None


def stacked(model, layout, recorder=None):
    """``train(tasks, descent=Descent()) -> [(x (P,), Trained)]``, an entry a task.

    An entry is the result of ``descend`` from the task's ``base``. Tasks are only read, their
    generators used.

    The tasks share model, layout, objective, lr with its schedule, clipping, optimiser and
    casting, and none of their probes watches steps or epochs. The loss of ``descent`` gives one
    value a sample for ``loss(logits, labels, reduction="none")``. The bits depend on the tasks of
    this call and the seed alone. ``model`` is bound to a vector of ``layout``, and the vector stays
    as it is. Ask ``refusal`` first. With the model's ``graphs.Recorder`` steps are recorded.
    """
    averages = any(_averages(module) for module in model.modules())
    return partial(_train, model, layout, recorder, averages)


def _averages(module):
    """Whether a layer is a norm that averages over its batches by their number."""
    return isinstance(module, NORMS) and module.momentum is None


def _train(model, layout, recorder, averages, tasks, descent=Descent()):
    """``train`` of ``stacked``; ``averages``: a norm needs the number of each step."""
    plan = planned(tasks, descent.shuffle)
    first = tasks[0]
    ordered = [tasks[position] for position in plan.order]
    inputs = torch.cat([task.inputs for task in ordered])
    labels = torch.cat([task.labels for task in ordered])
    start = _start(ordered, descent)
    step, operands = _prepared(model, layout, recorder, first, descent, start)

    lengths = plan.counts.count_nonzero(0).tolist()
    lrs = [learning_rates(task, steps) for task, steps in zip(ordered, lengths)]
    rates = _rates(lrs, first)
    model.train()
    for number, (a, width, even) in enumerate(plan.steps):
        index = plan.index[number, :width, :a]
        batch = inputs[index]
        if plan.drawn is not None:
            drawn = plan.drawn[number, :width, :a]
            batch = _augmented(first.augment, batch, drawn)
        targets = labels[index]
        shares = plan.shares[number, :width, :a]
        counts = plan.counts[number, :a]
        lr = rates(number, a)
        # A recorded step is one for each value of `number`: only an average needs it.
        known_number = number if averages else 0
        step(batch, targets, shares, counts, lr, even=even, number=known_number)

    X = operands["X"]
    if operands is not start:
        # The recorder's next training writes to its tensors again.
        X = X.clone()
    trained = _trained(plan, operands["total"], lengths, lrs, first.optimiser)
    if descent.resumes:
        states = states_of(operands)
        trained = [of_client._replace(state=_row(states, row, copy=True))
                   for row, of_client in enumerate(trained)]
    done = dict(zip(plan.order, zip(X, trained)))
    return [done[position] for position in range(len(tasks))]


def _prepared(model, layout, recorder, task, descent, start):
    """``(step, operands)``: the step of all clients, recorded if it can be, and its tensors."""
    make = partial(_step, model, layout, task, descent)
    if recorder is None or descent.loss is not None:
        return make(start), start
    rule = "together", task.optimiser, descent, task.clip_norm
    return recorder.steps(rule, make, start)


def _augmented(augment, batch, drawn):
    """The samples of ``batch (B, a, ...)``, each changed by its own row of ``drawn (B, a, k)``."""
    samples = batch.flatten(0, 1)
    changed = augment.apply(samples, drawn.flatten(0, 1))
    return changed.unflatten(0, batch.shape[:2])


def _trained(plan, total, lengths, lrs, optimiser):
    """The ``Trained`` of each client, in the plan's order, by the sums of losses ``total (G,)``."""
    seen = plan.counts.sum(0)
    divisors = seen.clamp(min=1)
    losses = (total.double() / divisors).tolist()
    travelled = [math.nan] * len(lrs)
    if optimiser.travelled:
        travelled = [optimiser.travelled(rates) for rates in lrs]
    samples = seen.long().tolist()
    return list(map(Trained, losses, lengths, samples, travelled))


def _start(tasks, descent):
    """The tensors, by name, that a training reads and writes.

    ``X (G, P)``, a client a row; ``total (G,)``, the sum of each client's losses; the optimiser's
    state; all others (G, R), or (1, R) if all clients have the same: ``base`` with mu, ``shift``
    with a shift, and ``trainable`` if weights are pruned.
    """
    first = tasks[0]
    R = first.layout.R
    bases = [task.base for task in tasks]
    X = torch.stack(bases)
    start = {"X": X, "total": X.new_zeros(len(tasks))}
    state = first.optimiser.init(X[:, :R])
    for row, task in enumerate(tasks):
        resume(_row(state, row), task.inner)
    for name, tensor in state.items():
        start[STATE + name] = tensor
    if descent.mu:
        start["base"] = _rows(bases)[:, :R]
    if descent.shift is not None:
        start["shift"] = _rows([shift_of(descent, task) for task in tasks])
    if _sparse(tasks):
        start["trainable"] = _rows([task.trainable for task in tasks])
    return start


def _row(state, row, copy=False):
    """A client's part of an optimiser's ``state``: views, or copies."""
    parts = {name: tensor[row] for name, tensor in state.items()}
    if not copy:
        return parts
    return {name: part.clone() for name, part in parts.items()}


def _rates(lrs, task):
    """``rates(number, a)``: the learning rate of step ``number`` for the a first clients.

    It is a tensor (a, 1), or of no dimensions if it is one for all clients and steps. ``lrs`` has
    a list a client.
    """
    device = task.x.device
    if task.rates is None or not task.rates.within:
        lr = _one_rate(lrs, task.lr, device)
        return lambda number, a: lr
    steps = max(map(len, lrs))
    table = torch.zeros(steps, len(lrs), 1)
    for client, rates in enumerate(lrs):
        table[: len(rates), client, 0] = torch.tensor(rates)
    table = table.to(device)
    return lambda number, a: table[number, :a]


def _one_rate(lrs, default, device):
    """(): the learning rate that all clients share; ``default`` if none of them takes a step."""
    firsts = [rates[0] for rates in lrs if rates]
    rate = firsts[0] if firsts else default
    dtype = torch.float32
    if device.type == "cpu":
        # The step turns it into a Python float, which has double precision.
        dtype = torch.float64
    return torch.full((), rate, dtype=dtype, device=device)


def _step(model, layout, task, descent, operands):
    """``step(inputs (B, a, ...), labels (B, a, ...), shares (B, a), counts (a,), lr, even,
    number)`` of the first a clients, with the tensors ``held``, see ``_start``.

    It keeps nothing of the ``task`` that belongs to its client.
    """
    X, total = operands["X"], operands["total"]
    R = layout.R
    g = X.new_empty(len(X), R)
    forward = _forward(model, layout, X.device)
    casting, optimiser = task.casting, task.optimiser
    mu, clip_norm = descent.mu, task.clip_norm
    loss = descent.loss or task.objective.loss
    state_of = _first_rows_of(operands)
    # a -> the leaves of the last step.
    last_leaves = {}

    def step(inputs, labels, shares, counts, lr, even, number):
        a = len(counts)
        if a not in last_leaves:
            last_leaves.clear()
            last_leaves[a] = leaves(layout, X[:a])
        tensors = last_leaves[a]
        facts = Step(number, None if even else shares)

        with casting():
            logits = forward(tensors, inputs, facts).flatten(0, 1)
            targets = labels.transpose(0, 1).flatten(0, 1)
            losses = loss(logits, targets, reduction="none").view(a, -1)
        means = (losses * shares.T).sum(1)
        slopes = g[:a]
        gradient(means.sum(), layout, tensors, slopes)
        total[:a] += means.detach() * counts

        x = X[:a, :R]
        bends, state = state_of(a)
        _bend(slopes, x, *bends, mu, clip_norm)
        if not lr.is_cuda and lr.ndim == 0:
            lr = lr.item()
        optimiser.step(x, slopes, state, lr)

    return step


def _first_rows_of(operands):
    """``first_rows(a) -> ((base, shift, trainable), optimiser's state)`` of the first a clients."""
    bends = [operands.get(name) for name in ("base", "shift", "trainable")]
    states = states_of(operands)

    def first_rows(a):
        bend = [None if tensor is None else tensor[:a] for tensor in bends]
        state = {name: tensor[:a] for name, tensor in states.items()}
        return bend, state

    return first_rows


def _bend(g, x, base, shift, trainable, mu, clip_norm):
    """Change all rows of a gradient in place, as ``descend`` does before the optimiser's step.

    All are (a, R); the last three tensors may be (1, R), or None if there are none.
    """
    if base is not None:
        g.add_(x, alpha=mu).sub_(base, alpha=mu)
    if shift is not None:
        g.add_(shift)
    if trainable is not None:
        g.mul_(trainable)
    if clip_norm:
        norms = g.norm(dim=1, keepdim=True)
        g.mul_((clip_norm / (norms + 1e-6)).clamp_(max=1.0))


# --- the plan ---


def planned(tasks, shuffle):
    """The ``Plan`` of the tasks' batches, as ``deal`` deals them from each task's own generator."""
    batches, draws = zip(*[_dealt(task, shuffle) for task in tasks])
    order = _longest_first(batches)
    sizes = [_sizes(batches[position]) for position in order]
    table = _empty_table(sizes, draws[0])

    start = 0
    for column, position in enumerate(order):
        if batches[position]:
            _fill(table, column, sizes[column], start, batches[position], draws[position])
        start += len(tasks[position].labels)

    device = tasks[0].labels.device
    index, shares, counts, drawn = [_on(device, array) for array in table]
    steps = _steps(table.counts)
    return Plan(order, index, shares, counts, drawn, steps)


def _dealt(task, shuffle):
    """``(batches, drawn (n, k))`` of a task's whole training.

    A batch is a tensor of sample numbers, a step each. ``drawn`` holds augmentation's draws for
    the samples in the order of the steps; None without augmentation.
    """
    epochs, steps, samples = length_of(task)
    batches, drawn = [], []
    for _ in range(epochs):
        order, draws = deal(task, shuffle)
        batches += order.split(task.batch_size)
        drawn.append(draws)
    # The last epoch may be cut short.
    batches = batches[:steps]
    if task.augment is None:
        return batches, None
    draws = torch.cat(drawn).numpy()
    return batches, draws[:samples]


def _longest_first(batches):
    """The positions of ``batches`` by falling number of steps."""
    lengths = [len(of_client) for of_client in batches]
    # Stable: clients with as many steps keep their order.
    return sorted(range(len(lengths)), key=lambda position: -lengths[position])


def _sizes(batches):
    """(steps,) int64: the number of samples of each batch."""
    return np.array([len(rows) for rows in batches], np.int64)


class _Table(NamedTuple):
    """The arrays of a ``Plan``, numpy's."""

    index: np.ndarray
    shares: np.ndarray
    counts: np.ndarray
    drawn: np.ndarray | None


def _empty_table(sizes, draws):
    """A ``_Table`` of zeros for clients with batches of ``sizes``, the longest training first.

    ``draws`` are any client's draws (n, k), None without augmentation.
    """
    S, G = len(sizes[0]), len(sizes)
    largest = [client_sizes.max(initial=0) for client_sizes in sizes]
    B = int(max(largest))
    index = np.zeros((S, B, G), np.int64)
    shares = np.zeros((S, B, G), np.float32)
    counts = np.zeros((S, G), np.float32)
    drawn = None
    if draws is not None:
        k = draws.shape[1]
        drawn = np.zeros((S, B, G, k), np.int64)
    return _Table(index, shares, counts, drawn)


def _fill(table, column, sizes, start, batches, draws):
    """Write a client's batches to its ``column``; its samples begin at number ``start``."""
    steps = len(sizes)
    rows = start + torch.cat(batches).numpy()
    firsts = sizes.cumsum() - sizes
    # Of each sample its step, and its place in the batch.
    step = np.arange(steps).repeat(sizes)
    place = np.arange(len(rows)) - firsts.repeat(sizes)
    at = step, place, column
    everywhere = slice(steps), slice(None), column

    share = 1 / sizes
    table.shares[at] = share.repeat(sizes)
    table.counts[:steps, column] = sizes
    # The first sample of each batch everywhere, then all samples at their own places.
    table.index[everywhere] = rows[firsts][:, None]
    table.index[at] = rows
    if table.drawn is not None:
        table.drawn[everywhere] = draws[firsts][:, None]
        table.drawn[at] = draws


def _on(device, array):
    """The array as a tensor on the device; None stays None."""
    if array is None:
        return None
    return torch.from_numpy(array).to(device)


def _steps(counts):
    """``Plan.steps`` by ``counts (S, G)``."""
    steps = []
    for row in counts:
        sizes = row[row > 0]
        largest = int(sizes.max())
        even = bool(sizes.min() == largest)
        steps.append((len(sizes), largest, even))
    return steps


def _rows(vectors):
    """(G, ...): the vectors as rows; (1, ...) if all are one object."""
    first = vectors[0]
    if all(vector is first for vector in vectors):
        return first[None]
    return torch.stack(vectors)


def _sparse(tasks):
    """Whether any of the tasks' masks prunes weights."""
    num_weights = tasks[0].layout.num_weights
    # Many tasks share a mask, and then its `live`.
    masks = {id(task.trainable): task.mask for task in tasks}
    return any(count(mask) != num_weights for mask in masks.values())


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


def _forward(model, layout, device):
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
