"""One client's local training on the model vector."""

import contextlib
import math
from functools import partial
from itertools import islice

import torch

from fedmpi.core.layout import views
from fedmpi.core.parts import Descent, Trained
from fedmpi.core.support import count
from fedmpi.core.tensors import normalises_batches

GATHERED = 1 << 24            # input values that are brought into an epoch's order at a time, 64 MiB
STATE = "state/"              # before the names of the optimiser's tensors among those of a training


def train(local, task):
    """The ``Trained`` of a task by a strategy's ``local``, a ``Descent`` or a function."""
    return descend(task, local) if isinstance(local, Descent) else local(task)


def deal(task, shuffle=True):
    """``(order, drawn)`` of one epoch, from the task's generator: the samples' numbers in the order of training, int64,
    and a row of what augmentation draws for each, None without it. A single sample left over is dropped where the model
    normalises over the batch, which one sample cannot feed."""
    n = len(task.labels)
    order = torch.from_numpy(task.gen.permutation(n)) if shuffle else torch.arange(n)
    if leaves_one_out(n, task.batch_size) and normalises_batches(task.model):
        order = order[:-1]
    if task.augment is None:
        return order, None
    return order, task.augment.draw(task.gen, len(order), tuple(task.inputs.shape[1:]))


def leaves_one_out(n, batch_size):
    """Whether the last of several batches of n samples is a single sample."""
    return n > 1 and n % batch_size == 1


def length(n, batch_size, epochs, steps=0, normalises=False):
    """``(epochs, steps, samples)`` of a training on n samples: so many epochs or, where ``steps`` is not 0, so many
    steps, in the last of the epochs at most. ``normalises``: whether the model normalises over batches."""
    an_epoch = n - (normalises and leaves_one_out(n, batch_size))
    batches_an_epoch = -(-an_epoch // batch_size)
    if not (steps and an_epoch):
        return epochs, epochs * batches_an_epoch, epochs * an_epoch
    whole, rest = divmod(steps, batches_an_epoch)
    return whole + (rest > 0), steps, whole * an_epoch + min(rest * batch_size, an_epoch)


def length_of(task):
    """``(epochs, steps, samples)`` of a task's training."""
    n = len(task.labels)
    normalises = leaves_one_out(n, task.batch_size) and normalises_batches(task.model)
    return length(n, task.batch_size, task.epochs, task.steps, normalises)


def learning_rates(task, steps):
    """The learning rate of each of a task's steps: a list of floats."""
    if task.rates is None:
        return [task.lr] * steps
    if not task.rates.within:
        return [task.lr * task.rates.rate(task.schedule, 0, 1)] * steps
    return [task.lr * task.rates.rate(task.schedule, step, steps) for step in range(steps)]


def batches(task, shuffle=True):
    """The (inputs, labels) of one epoch; the last batch may be smaller, or left out, see ``deal``."""
    order, drawn = deal(task, shuffle)
    many = task.batch_size * max(1, GATHERED // max(1, task.batch_size * task.inputs[0].numel()))
    for start, rows in zip(range(0, len(order), many), order.to(task.labels.device).split(many)):
        inputs = task.inputs[rows]
        if drawn is not None:
            inputs = augmented(task.augment, inputs, drawn[start: start + many])
        yield from zip(inputs.split(task.batch_size), task.labels[rows].split(task.batch_size))


def _epoch(task, descent):
    """The (inputs, targets) of one epoch: those that the descent brings, or what is dealt."""
    if not descent.batches:
        return batches(task, descent.shuffle)
    device = task.x.device
    return ((inputs.to(device), targets.to(device)) for inputs, targets in descent.batches)


def augmented(augment, images, drawn):
    """The images (n, C, H, W) changed as ``drawn (n, k)`` says; on a CPU their channels lie last, as before."""
    images = augment.apply(images, drawn.to(images.device))
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def descend(task, descent=Descent()):
    """Masked mini-batch descent on ``task.x`` in place; the mean loss of what it returns is over all samples seen.

    The arithmetic is that of torch's own optimisers where they are fused, bit for bit, and of
    ``torch.nn.utils.clip_grad_norm_``. The gradient is masked before it is clipped and before the optimiser sees it, so
    pruned weights stay zero.

    Steps are recorded where the task has a recorder and nobody watches them.
    """
    probe, optimiser = task.probe, task.optimiser
    x = task.x[: task.layout.R]
    epochs, steps, _ = length_of(task)
    if descent.batches:
        epochs, steps = task.epochs, task.epochs * len(descent.batches)
    lrs = learning_rates(task, steps)
    start = _start(task, descent, x)
    make, watched = partial(_step, task, descent, x, "live" in start), probe.step or probe.epoch
    if task.recorder is None or watched or descent.loss is not None:
        step, held = make(start), start
    else:
        rule = optimiser, descent, task.clip_norm
        step, held = task.recorder.steps(rule, make, start)
    taken, seen, lr = 0, 0, None
    task.model.train()
    for epoch in range(epochs):
        for inputs, labels in islice(_epoch(task, descent), steps - taken):
            if "lr" not in held:
                step(inputs, labels, lrs[taken])
            else:
                if lrs[taken] != lr:
                    lr = lrs[taken]
                    held["lr"].fill_(lr)
                step(inputs, labels)
            taken += 1
            seen += len(labels)
        if probe.epoch is not None and probe.epoch(epoch):
            for moved in (x, *_states(held).values()):
                if moved.shape == task.live.shape:
                    moved.mul_(task.live)
    if _as_a_vector(descent, optimiser, probe.step):
        task.g.zero_()
    travelled = optimiser.travelled(lrs[:taken]) if optimiser.travelled else math.nan
    return Trained(float(held["total"]) / max(seen, 1), taken, seen, travelled)


def _start(task, descent, x):
    """The tensors, by name, that a training reads and writes beside the model in ``x (R,)``.

    ``total ()`` is the sum of the losses of all samples. On a GPU ``lr ()`` is the learning rate, which a recorded step
    reads anew each time. All others are (R,): the optimiser's state, ``live`` where weights are pruned, ``base`` with
    mu and ``shift`` with a shift."""
    layout = task.layout
    start = {"total": torch.zeros((), device=x.device)}
    if x.is_cuda:
        start["lr"] = torch.zeros((), device=x.device)
    start |= {STATE + name: tensor for name, tensor in task.optimiser.init(x).items()}
    if count(task.mask) < layout.num_weights or task.probe.epoch is not None:
        start["live"] = task.live
    if descent.mu:
        start["base"] = task.base[: layout.R]
    if descent.shift is not None:
        start["shift"] = shift_of(descent, task)
    return start


def shift_of(descent, task):
    """(R,): what is added to every gradient of the task, 0 on padding."""
    R = task.layout.R
    return descent.shift(task) * task.layout.real[:R].to(task.x.device)


def _states(held):
    """The optimiser's tensors among ``held``, by the optimiser's names."""
    return {name.removeprefix(STATE): tensor for name, tensor in held.items() if name.startswith(STATE)}


def _as_a_vector(descent, optimiser, watch):
    """Whether somebody wants a step's gradient as one vector."""
    return bool(descent.mu or descent.shift or watch or optimiser.fused is None)


def _step(task, descent, x, sparse, held):
    """``step(inputs, labels, lr)`` of ``descend`` on the model in ``x (R,)``, with the tensors ``held``, see
    ``_start``, among which on a GPU is the learning rate; it keeps nothing of the task that is its client's."""
    model, layout, g, casting, watch = task.model, task.layout, task.g, task.casting, task.probe.step
    total, loss = held["total"], descent.loss or task.objective.loss
    as_a_vector, clip_norm = _as_a_vector(descent, task.optimiser, watch), task.clip_norm
    named = dict(model.named_parameters())
    trained = [named[slot.name] for slot in layout.trained]
    move = _move(task, x, trained, held)
    lives = views(layout, held["live"]) if sparse else []
    shown = views(layout, g) if as_a_vector else []
    order = _models_order(layout, named) if clip_norm else []

    def step(inputs, labels, lr=None):
        with casting():
            value = loss(model(inputs), labels)
        gradients = torch.autograd.grad(value, trained, materialize_grads=True)
        gradients = [each.contiguous() for each in gradients]          # fused steps take all in memory's order
        total.add_(value.detach(), alpha=len(labels))
        if as_a_vector:
            torch._foreach_copy_(shown, gradients)
            gradients = shown
        if watch is not None:
            watch(g)
        if descent.mu:
            g.add_(x, alpha=descent.mu).sub_(held["base"], alpha=descent.mu)
        if descent.shift is not None:
            g.add_(held["shift"])
        if sparse:
            gradients = _scaled(gradients, lives, as_a_vector)
        if clip_norm:
            gradients = _scaled(gradients, clipping(clip_norm, gradients, order), as_a_vector)
        move(gradients, held["lr"] if lr is None else lr)

    return step


def _scaled(gradients, factors, in_place):
    """The gradients times their factors; not in place where two weights may share one."""
    if not in_place:
        return torch._foreach_mul(gradients, factors)
    torch._foreach_mul_(gradients, factors)
    return gradients


def _models_order(layout, named):
    """The places of ``layout.trained`` in the order of the model's parameters ``named``, in which torch adds up."""
    places = {slot.name: place for place, slot in enumerate(layout.trained)}
    return [places[name] for name in named if name in places]


def clipping(most, gradients, order):
    """(): the factor that shortens the gradients, all together, to the norm ``most``; 1 where they are shorter.
    ``order`` is that in which their norms are added up."""
    norms = torch._foreach_norm([gradients[place] for place in order])
    norm = torch.linalg.vector_norm(torch.stack(norms))
    return (most / (norm + 1e-6)).clamp(max=1.0)


def _move(task, x, trained, held):
    """``move(gradients, lr)``: the optimiser's step on ``x (R,)``, where the ``trained`` parameters live, with the
    state among ``held``. Without a fused kernel the gradients are views of the task's ``g``."""
    layout, optimiser, state, g = task.layout, task.optimiser, _states(held), task.g
    if optimiser.fused is None:
        return lambda gradients, lr: optimiser.step(x, g, state, lr)
    parameters = [parameter.data for parameter in trained]
    states = {name: views(layout, tensor) if tensor.shape == x.shape else tensor for name, tensor in state.items()}
    return lambda gradients, lr: optimiser.fused(parameters, gradients, states, lr)


def casting(precision, device):
    """What ``Task.casting`` is for ``float32`` or ``bf16``: with bf16, products and convolutions take and give
    bfloat16, and the weights, their gradients and the optimiser stay float32."""
    if precision == "float32":
        return contextlib.nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def dense_gradient(task, num_batches, loss=None):
    """(R,): the mean dense gradient at the received model over ``num_batches`` mini-batches drawn without replacement
    (all of them where there are fewer). Batch statistics are left as they were."""
    loss = loss or task.objective.loss
    task.g.zero_()
    taken = 0
    task.model.eval()
    for inputs, labels in batches(task):
        with task.casting():
            value = loss(task.model(inputs), labels)
        value.backward()
        taken += 1
        if taken == num_batches:
            break
    gradient = task.g / max(taken, 1)
    task.g.zero_()
    return gradient
