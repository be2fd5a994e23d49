"""Local training of G clients of one architecture at once: ``fedmpi.compute.sgd.descend``, side by side.

A small model leaves a GPU waiting for its next kernel, and a CPU for Python. The clients' vectors are the rows of one
matrix X (G, P), their gradients those of another (G, R); a step of all is one pass through one wide network (grouped
convolutions and batched products, see ``fedmpi.compute.forward``) and one pass of the optimiser over both
matrices. Models
that are no chain of layers go through ``torch.func.vmap``.

What a client gets differs from one by one by rounding alone, dropout aside: its batches are those that its own
generator deals. Rows stand in order of their steps, so those that still train are the first ones. A batch smaller than
the widest of its step is filled up with its first sample, at weight 0 in the loss and in batch statistics. Dropout
draws for all rows at once from torch's generator, which the caller seeds: what a client drops depends on who is beside
it.

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
from fedmpi.core.layout import ALIGN
from fedmpi.core.support import count
from fedmpi.core.parts import Descent, Trained
from fedmpi.compute.sgd import STATE, deal, learning_rates, length_of, shift_of

WITH_G = "base", "shift", "live"     # what a gradient is bent by, where it is there
NORMS = nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm


class Plan(NamedTuple):
    """Who trains on what at each step; clients stand in ``order`` of falling number of steps."""

    order: list                   # G positions in the tasks
    index: torch.Tensor           # (S, B, G) int64 into the clients' samples, one client after the other
    shares: torch.Tensor          # (S, B, G) float32: 1 / b for the b samples of a batch, 0 for what fills it up
    counts: torch.Tensor          # (S, G) float32: b, 0 for clients that have finished
    drawn: torch.Tensor | None    # (S, B, G, k) int64: what augmentation draws for each sample
    steps: list                   # S: (clients still at work, samples of the largest batch, whether all are as large)


class Step(NamedTuple):
    """What a layer may need to know of the step beside its input."""

    number: int                   # steps before it, where a norm averages by them
    shares: torch.Tensor | None   # (B, a), where batches are not all as large


def stacked(model, layout, recorder=None):
    """``train(tasks, descent=Descent()) -> [(x (P,), Trained)]``, an entry a task: what ``descend`` would make of each
    from its ``base``. Tasks are only read, their generators used.

    The tasks share model, layout, objective, lr and all that is done with it, and casting, and no probe of theirs
    watches steps or epochs. The loss of ``descent`` gives one value a sample for ``loss(logits, labels,
    reduction="none")``. The bits depend on the tasks of this call and the seed alone. ``model`` is bound to a vector of
    ``layout``, which stays as it is. Ask ``refusal`` first. Steps are recorded where there is the model's
    ``graphs.Recorder``.
    """

    def train(tasks, descent=Descent()):
        plan, first = planned(tasks, descent.shuffle), tasks[0]
        ordered = [tasks[position] for position in plan.order]
        inputs, labels = (torch.cat([getattr(task, name) for task in ordered]) for name in ("inputs", "labels"))
        start = _start(ordered, descent)
        make = partial(_step, model, layout, first, descent)
        if recorder is None or descent.loss is not None:
            step, held = make(start), start
        else:
            rule = "together", first.optimiser, descent, first.clip_norm
            step, held = recorder.steps(rule, make, start)
        lengths = plan.counts.count_nonzero(0).tolist()
        lrs = [learning_rates(task, steps) for task, steps in zip(ordered, lengths)]
        rates = _rates(lrs, first)
        model.train()
        for number, (a, width, even) in enumerate(plan.steps):
            index = plan.index[number, :width, :a]
            batch = inputs[index]
            if plan.drawn is not None:
                images, drawn = batch.flatten(0, 1), plan.drawn[number, :width, :a].flatten(0, 1)
                batch = first.augment.apply(images, drawn).unflatten(0, (width, a))
            step(batch, labels[index], plan.shares[number, :width, :a], plan.counts[number, :a], rates(number, a),
                 even=even, number=number * averages)
        X = held["X"] if held is start else held["X"].clone()
        seen = plan.counts.sum(0)
        losses = (held["total"].double() / seen.clamp(min=1)).tolist()
        travelled = [first.optimiser.travelled(each) if first.optimiser.travelled else math.nan for each in lrs]
        trained = map(Trained, losses, lengths, map(int, seen.tolist()), travelled)
        done = dict(zip(plan.order, zip(X, trained)))
        return [done[position] for position in range(len(tasks))]

    averages = any(isinstance(module, NORMS) and module.momentum is None for module in model.modules())
    return train


def _start(tasks, descent):
    """The tensors, by name, that a training reads and writes: ``X (G, P)``, a client a row, ``total (G,)``, the sum of
    each one's losses, and the optimiser's state; all others (G, R), or (1, R) where all have the same: ``base`` with
    mu, ``shift`` with a shift, and ``live`` where weights are pruned."""
    X, R = torch.stack([task.base for task in tasks]), tasks[0].layout.R
    start = {"X": X, "total": X.new_zeros(len(tasks))}
    start |= {STATE + name: tensor for name, tensor in tasks[0].optimiser.init(X[:, :R]).items()}
    if descent.mu:
        start["base"] = _rows([task.base for task in tasks])[:, :R]
    if descent.shift is not None:
        start["shift"] = _rows([shift_of(descent, task) for task in tasks])
    if _sparse(tasks):
        start["live"] = _rows([task.live for task in tasks])
    return start


def _rates(lrs, task):
    """``rates(number, a)``: the learning rate of step ``number`` as a tensor, of the a first clients (a, 1), or of no
    dimensions where it is one for all and every step: in double precision on a CPU, as what it stands for is a number
    there. ``lrs`` are a list a client."""
    device = task.x.device
    if task.rates is None or not task.rates.within:
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        lr = torch.full((), next((each[0] for each in lrs if each), task.lr), dtype=dtype, device=device)
        return lambda number, a: lr
    rows = torch.zeros(max(map(len, lrs)), len(lrs), 1)
    for client, each in enumerate(lrs):
        rows[: len(each), client, 0] = torch.tensor(each)
    rows = rows.to(device)
    return lambda number, a: rows[number, :a]


def _step(model, layout, task, descent, held):
    """``step(inputs (B, a, ...), labels (B, a, ...), shares (B, a), counts (a,), lr, even, number)`` of the first a
    clients with the tensors ``held``, see ``_start``; it keeps nothing of the ``task`` that is its client's."""
    X, total, R, known = held["X"], held["total"], layout.R, {}
    g, forward = X.new_empty(len(X), R), _forward(model, layout, X.device)
    casting, optimiser, clip_norm = task.casting, task.optimiser, task.clip_norm
    loss, states = descent.loss or task.objective.loss, [name for name in held if name.startswith(STATE)]

    def step(inputs, labels, shares, counts, lr, even, number):
        a = len(counts)
        if a not in known:
            known.clear()
            known[a] = leaves(layout, X[:a])
        with casting():
            logits = forward(known[a], inputs, Step(number, None if even else shares))
            each = loss(logits.flatten(0, 1), labels.transpose(0, 1).flatten(0, 1), reduction="none").view(a, -1)
        means = (each * shares.T).sum(1)
        gradient(means.sum(), layout, known[a], g[:a])
        total[:a] += means.detach() * counts
        x, base, shift, live = X[:a, :R], *(held[name][:a] if name in held else None for name in WITH_G)
        _bend(g[:a], x, base, shift, live, descent.mu, clip_norm)
        state = {name.removeprefix(STATE): held[name][:a] for name in states}
        optimiser.step(x, g[:a], state, lr if lr.is_cuda or lr.ndim else lr.item())

    return step


def _bend(g, x, base, shift, live, mu, clip_norm):
    """What ``descend`` does to a gradient before the optimiser sees it, on all rows, in place; all (a, R), the last
    three perhaps (1, R), or None where there are none."""
    if base is not None:
        g.add_(x, alpha=mu).sub_(base, alpha=mu)
    if shift is not None:
        g.add_(shift)
    if live is not None:
        g.mul_(live)
    if clip_norm:
        g.mul_((clip_norm / (g.norm(dim=1, keepdim=True) + 1e-6)).clamp_(max=1.0))


def planned(tasks, shuffle):
    """The ``Plan`` of the tasks' batches, as ``deal`` deals them from each task's own generator."""
    dealt = [_dealt(task, shuffle) for task in tasks]
    order = sorted(range(len(tasks)), key=lambda position: -len(dealt[position][0]))       # stable
    sizes = [np.array([len(rows) for rows in dealt[position][0]], np.int64) for position in order]
    S, B, G = len(sizes[0]), max(int(each.max(initial=0)) for each in sizes), len(tasks)
    index, shares, counts = np.zeros((S, B, G), np.int64), np.zeros((S, B, G), np.float32), np.zeros((S, G), np.float32)
    drawn = None if tasks[0].augment is None else np.zeros((S, B, G, dealt[0][1].shape[1]), np.int64)
    start = 0
    for column, (position, each) in enumerate(zip(order, sizes)):
        if not len(each):
            continue
        ends = each.cumsum()
        number = np.arange(len(each)).repeat(each)
        place = np.arange(ends[-1]) - (ends - each).repeat(each)
        shares[number, place, column] = (1 / each).repeat(each)
        counts[: len(each), column] = each
        rows, chance = start + torch.cat(dealt[position][0]).numpy(), dealt[position][1]
        # The first sample of each batch everywhere, then all of them where they belong.
        index[: len(each), :, column] = rows[ends - each][:, None]
        index[number, place, column] = rows
        if drawn is not None:
            drawn[: len(each), :, column] = chance[ends - each][:, None]
            drawn[number, place, column] = chance
        start += len(tasks[position].labels)
    at_step = [counts[number][counts[number] > 0] for number in range(S)]
    device = tasks[0].labels.device
    arrays = (array if array is None else torch.from_numpy(array).to(device)
              for array in (index, shares, counts, drawn))
    return Plan(order, *arrays, [(len(each), int(each.max()), bool(each.min() == each.max())) for each in at_step])


def _dealt(task, shuffle):
    """``(batches, drawn (n, k))`` of a task's whole training: the samples' numbers, a tensor a step, and what
    augmentation draws for each sample, one step after the other; None without it."""
    epochs, steps, samples = length_of(task)
    orders, drawn = zip(*(deal(task, shuffle) for _ in range(epochs)))
    dealt = [rows for order in orders for rows in order.split(task.batch_size)]
    return dealt[:steps], None if drawn[0] is None else torch.cat(drawn).numpy()[:samples]


def leaves(layout, X):
    """``{name: (a, *shape)}``, views of the rows of ``X (a, P)``: parameters as leaves of a graph, and buffers."""
    parameters = {slot.name: X[:, slot.span].view(-1, *slot.shape).data.requires_grad_()   # .data: buffers move before
                  for slot in layout.weights + layout.others}                              # the gradient is taken
    return parameters | {slot.name: X[:, slot.span].view(-1, *slot.shape) for slot in layout.buffers}


def gradient(value, layout, tensors, g):
    """Write the derivative of ``value`` by the parameters among ``tensors`` to ``g (a, R)``, 0 on padding."""
    slots = layout.weights + layout.others
    found = torch.autograd.grad(value, [tensors[slot.name] for slot in slots], materialize_grads=True)
    pads = g.new_zeros(len(g), ALIGN)
    parts = [part for slot, each in zip(slots, found) for part in (each.flatten(1), pads[:, : -slot.size % ALIGN])]
    torch.cat(parts, 1, out=g)


def _rows(vectors):
    """(G, ...): the vectors as rows; (1, ...) where all are one."""
    first = vectors[0]
    return first[None] if all(each is first for each in vectors) else torch.stack(vectors)


def _sparse(tasks):
    masks = {id(task.live): task.mask for task in tasks}.values()
    return any(count(mask) != tasks[0].layout.num_weights for mask in masks)


def refusal(model, layout, sample):
    """Why clients of this model cannot train side by side: half a line, empty where they can. ``sample (2, ...)`` is an
    input of each of two clients; whether other values would change the answer is not tried."""
    if _rules(model, layout, torch.device("cpu")) is not None:
        return ""
    if layout.buffers or any(isinstance(module, NORMS) for module in model.modules()):
        return ("the model has statistics that training moves, and is no chain of layers (nn.Sequential with one "
                "nn.Flatten, of convolutions, linear layers, batch norm, pooling, activations and dropout)")
    device = next(model.parameters()).device
    tensors, g = leaves(layout, torch.zeros(2, layout.P, device=device)), torch.empty(2, layout.R, device=device)
    try:
        gradient(_mapped(model, tensors, sample[None].to(device), None).sum(), layout, tensors, g)
    except (RuntimeError, ValueError, TypeError) as error:
        return f"torch.func.vmap cannot map the model: {str(error).strip().splitlines()[0]}"
    return ""


def _forward(model, layout, device):
    """``forward(tensors, inputs (B, a, ...), step) -> logits (a, B, classes)`` in training mode."""
    rules = _rules(model, layout, device)
    return partial(_mapped, model) if rules is None else partial(_wide, *rules)


def _mapped(model, tensors, inputs, step):
    """Any module that does not mix samples."""
    def one(tensors, inputs):
        return functional_call(model, tensors, (inputs,))

    return vmap(one, in_dims=(0, 1), randomness="different")(tensors, inputs)


def _wide(body, head, memory, tensors, inputs, step):
    """A chain; ``body`` and ``head`` are rules ``(tensors, step) -> layer``."""
    a = inputs.shape[1]
    if not body:
        return through([rule(tensors, step) for rule in head], inputs.flatten(2).transpose(0, 1))
    h = through([rule(tensors, step) for rule in body], inputs.flatten(1, 2).to(memory_format=memory))
    return through([rule(tensors, step) for rule in head], h.reshape(len(h), a, -1).transpose(0, 1))


def _rules(model, layout, device):
    """``(body, head, memory format)``; None where the model is no chain of layers that have a rule."""
    found = chain(model)
    if found is None:
        return None
    memory = torch.channels_last if device.type == "cpu" else torch.contiguous_format      # CPU: a third faster
    kept = {slot.name for slot in layout.weights + layout.others + layout.buffers}
    name_of = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if name in kept}

    def stack(tensors, tensor):
        if id(tensor) in name_of:
            return tensors[name_of[id(tensor)]]
        clients = len(next(iter(tensors.values())))
        return tensor.detach().expand(clients, *tensor.shape)        # frozen: the same for all

    def plain(rule):
        return rule and (lambda tensors, step: rule(tensors))

    body = [partial(_norm, layer, stack, _counted(layer)) if type(layer) is nn.BatchNorm2d
            else plain(body_rule(layer, stack, shared=False, memory=memory)) for layer in found[0]]
    head = [_head_rule(layer, stack) for layer in found[1]]
    return None if None in body + head else (body, head, memory)


def _head_rule(layer, stack):
    """``rule(tensors, step) -> layer`` on ``(a, B, features)``; None where the layer has no rule."""
    if type(layer) in ELEMENTWISE:
        return lambda tensors, step: layer
    if type(layer) is nn.BatchNorm1d:
        return partial(_flat_norm, layer, stack, _counted(layer))
    if type(layer) is nn.Linear:
        return partial(_linear, layer, stack)
    return None


def _linear(layer, stack, tensors, step):
    """The weight is the first factor, so that its gradient comes in its own order and is not copied."""
    weight = stack(tensors, layer.weight)
    if layer.bias is None:
        return lambda h: torch.bmm(weight, h.transpose(1, 2)).transpose(1, 2)
    bias = stack(tensors, layer.bias)[:, :, None]
    return lambda h: torch.baddbmm(bias, weight, h.transpose(1, 2)).transpose(1, 2)


def _counted(layer):
    """The batches that a norm has seen before these clients train, where it averages by their number."""
    return int(layer.num_batches_tracked) if layer.track_running_stats and layer.momentum is None else 0


def _flat_norm(layer, stack, counted, tensors, step):
    """Batch norm of ``(a, B, features)``."""
    norm = _norm(layer, stack, counted, tensors, step)
    return lambda h: norm(h.transpose(0, 1).flatten(1)).unflatten(1, (len(h), -1)).transpose(0, 1)


def _norm(layer, stack, counted, tensors, step):
    """Batch norm of ``(B, a * channels, ...)`` by each client's own batch, its running statistics moved in place."""
    weight, bias, mean, var = (None if tensor is None else stack(tensors, tensor) for tensor in (
        layer.weight, layer.bias, layer.running_mean, layer.running_var))
    factor = 1 / (counted + step.number + 1) if layer.momentum is None else layer.momentum

    def move(batch_mean, batch_var):
        """By (a, channels), the variance unbiased."""
        if mean is not None:
            mean.lerp_(batch_mean, factor)
            var.lerp_(batch_var, factor)

    def even(h):
        found = [torch.zeros(h.shape[1], device=h.device) for _ in range(2)]       # of this batch alone
        scale = [None if each is None else each.flatten() for each in (weight, bias)]
        h = F.batch_norm(h, *found, *scale, training=True, momentum=1.0, eps=layer.eps)
        move(*(each.view(-1, layer.num_features) for each in found))
        return h

    def uneven(h):
        h = h.unflatten(1, (-1, layer.num_features))
        over = (0, *range(3, h.ndim))
        shares = step.shares.view(*step.shares.shape, *[1] * (h.ndim - 2)) / h[0, 0, 0].numel()
        batch_mean = (h * shares).sum(over, keepdim=True)
        h = h - batch_mean
        batch_var = (h.square() * shares).sum(over, keepdim=True)
        values = 1 / shares.amax(0, keepdim=True)                                  # that a client's statistics are of
        with torch.no_grad():
            move(batch_mean.flatten(0, 1).flatten(1), (batch_var * (values / (values - 1))).flatten(0, 1).flatten(1))
        h = h * (batch_var + layer.eps).rsqrt()
        if weight is not None:
            shape = (*weight.shape, *[1] * (h.ndim - 3))
            h = h * weight.view(shape) + bias.view(shape)
        return h.flatten(1, 2)

    return even if step.shares is None else uneven
