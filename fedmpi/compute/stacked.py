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

import torch

from fedmpi.compute.batch_plan import planned
from fedmpi.compute.sgd import STATE, grow, learning_rates, resume, shift_of, states_of
from fedmpi.compute.stacked_forward import Step, averages, gradient, leaves, wide_forward
from fedmpi.core.parts import Descent, Trained
from fedmpi.core.support import count


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
    by_number = any(averages(module) for module in model.modules())
    return partial(_train, model, layout, recorder, by_number)


def _train(model, layout, recorder, by_number, tasks, descent=Descent()):
    """``train`` of ``stacked``; ``by_number``: a norm needs the number of each step."""
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
        known_number = number if by_number else 0
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
    # The plan has the longest training first; the caller's order comes back.
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
    rows = drawn.flatten(0, 1)
    changed = augment.apply(samples, rows)
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
        if task.inner:
            grow(task, _row(state, row))
    for name, tensor in state.items():
        start[STATE + name] = tensor
    if descent.mu:
        start["base"] = _rows(bases)[:, :R]
    if descent.shift is not None:
        shifts = [shift_of(descent, task) for task in tasks]
        start["shift"] = _rows(shifts)
    if _sparse(tasks):
        trainables = [task.trainable for task in tasks]
        start["trainable"] = _rows(trainables)
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
    changes_within = task.rates is not None and task.rates.within
    if not changes_within:
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
    # A recorded step reads it on the GPU.
    dtype = torch.float32
    if device.type == "cpu":
        # The step turns it into a Python float, which has double precision.
        dtype = torch.float64
    return torch.full((), rate, dtype=dtype, device=device)


def _step(model, layout, task, descent, operands):
    """``step(inputs (B, a, ...), labels (B, a, ...), shares (B, a), counts (a,), lr, even,
    number)`` of the first a clients, with the tensors ``operands``, see
    ``_start``.

    It keeps nothing of the ``task`` that belongs to its client.
    """
    X, total = operands["X"], operands["total"]
    R = layout.R
    g = X.new_empty(len(X), R)
    forward = wide_forward(model, layout, X.device)
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


def _rows(vectors):
    """(G, ...): the vectors as rows; (1, ...) if all are one object."""
    first = vectors[0]
    if all(vector is first for vector in vectors):
        return first[None]
    return torch.stack(vectors)


def _sparse(tasks):
    """Whether any of the tasks' masks prunes weights."""
    num_weights = tasks[0].layout.num_weights
    # Many tasks share a mask, and then its ``trainable``.
    masks = {id(task.trainable): task.mask for task in tasks}
    return any(count(mask) != num_weights for mask in masks.values())
