"""One client's local training on the model vector."""

import contextlib
import math
from functools import partial
from itertools import islice

import torch

from fedmpi.compute.kernels import multiplying
from fedmpi.core.allocator import in_huge_pages
from fedmpi.core.layout import views
from fedmpi.core.parts import Descent, Trained
from fedmpi.core.support import count
from fedmpi.core.tensors import normalises_batches

# Input values that are brought into an epoch's order at a time: 64 MiB.
GATHERED = 1 << 24
# Before the names of the optimiser's tensors among the tensors of a training.
STATE = "state/"


def train(local, task):
    """The ``Trained`` of a task by a strategy's ``local``, a ``Descent`` or a function."""
    if isinstance(local, Descent):
        return descend(task, local)
    return local(task)


# --- the samples of each step ---


def deal(task, shuffle=True):
    """``(order, drawn)`` of one epoch, from the task's generator.

    ``order`` holds the samples' numbers in the order of training, int64, and ``drawn`` a row of
    augmentation's draws for each sample, None without augmentation. A single sample left over is
    dropped if the model normalises over the batch, as one sample cannot feed it.
    """
    n = len(task.labels)
    if shuffle:
        order = torch.from_numpy(task.gen.permutation(n))
    else:
        order = torch.arange(n)
    if leaves_one_out(n, task.batch_size) and normalises_batches(task.model):
        order = order[:-1]
    if task.augment is None:
        return order, None
    sample_shape = tuple(task.inputs.shape[1:])
    drawn = task.augment.draw(task.gen, len(order), sample_shape)
    return order, drawn


def leaves_one_out(n, batch_size):
    """Whether the last of several batches of n samples is a single sample."""
    return n > 1 and n % batch_size == 1


def length(n, batch_size, epochs, steps=0, normalises=False, drawn=False):
    """``(epochs, steps, samples)`` of a training on n samples.

    It lasts so many epochs or, if ``steps`` is not 0, so many steps; its last epoch may be cut
    short. ``normalises``: the model normalises over batches. ``drawn``: samples are drawn windows,
    and all batches are full.
    """
    an_epoch = n
    if drawn:
        an_epoch = -(-n // batch_size) * batch_size
    if normalises and leaves_one_out(n, batch_size):
        an_epoch = n - 1
    batches_an_epoch = -(-an_epoch // batch_size)
    if not (steps and an_epoch):
        return epochs, epochs * batches_an_epoch, epochs * an_epoch

    whole, rest = divmod(steps, batches_an_epoch)
    started = whole + (rest > 0)
    # The last batch of an epoch may be smaller.
    in_rest = min(rest * batch_size, an_epoch)
    return started, steps, whole * an_epoch + in_rest


def length_of(task):
    """``(epochs, steps, samples)`` of a task's training."""
    n = len(task.labels)
    normalises = leaves_one_out(n, task.batch_size) and normalises_batches(task.model)
    drawn = task.stretch is not None
    return length(n, task.batch_size, task.epochs, task.steps, normalises, drawn)


def learning_rates(task, steps):
    """The learning rate of each of a task's steps: a list of floats."""
    if task.rates is None:
        return [task.lr] * steps
    rate, now = task.rates.rate, task.now
    if not task.rates.within:
        lr = task.lr * rate(now, 0, 1)
        return [lr] * steps
    factors = [rate(now, step, steps) for step in range(steps)]
    return [task.lr * factor for factor in factors]


def batches(task, shuffle=True):
    """The (inputs, labels) of one epoch; the last batch may be smaller or missing, see ``deal``."""
    if task.stretch is not None:
        yield from drawn_windows(task)
        return
    order, drawn = deal(task, shuffle)
    order = order.to(task.labels.device)
    size = task.batch_size
    # A block is as many whole batches as GATHERED allows.
    batch_values = max(1, size * task.inputs[0].numel())
    block = size * max(1, GATHERED // batch_values)
    start = 0
    for rows in order.split(block):
        inputs = task.inputs[rows]
        labels = task.labels[rows]
        if drawn is not None:
            draws = drawn[start: start + block]
            inputs = augmented(task.augment, inputs, draws)
        yield from zip(inputs.split(size), labels.split(size))
        start += block


def drawn_windows(task):
    """The (inputs, targets) of one epoch of a stretch of tokens: full batches of windows.

    Each window begins at a token drawn anew, so that an epoch sees some tokens twice. Only the
    batches that are asked for are drawn.
    """
    stretch, size = task.stretch, task.batch_size
    n, window = task.inputs.shape
    # Views: a window is copied when its batch is.
    inputs = stretch[:-1].unfold(0, window, 1)
    targets = stretch[1:].unfold(0, window, 1)
    num_batches = -(-n // size)
    for _ in range(num_batches):
        drawn = task.gen.integers(0, len(inputs), size)
        starts = torch.from_numpy(drawn).to(stretch.device)
        yield inputs[starts], targets[starts]


def _epoch(task, descent, own_batches):
    """The (inputs, targets) of one epoch: the caller's own batches, or freshly dealt ones."""
    if not own_batches:
        return batches(task, descent.shuffle)
    return _moved(own_batches, task.x.device)


def _moved(batches, device):
    """The batches on the device."""
    for inputs, targets in batches:
        yield inputs.to(device), targets.to(device)


def augmented(augment, images, drawn):
    """The images (n, C, H, W) changed by ``drawn (n, k)``; on a CPU their channels lie last."""
    images = augment.apply(images, drawn.to(images.device))
    if images.device.type != "cpu":
        return images
    return images.contiguous(memory_format=torch.channels_last)


# --- descent ---


def descend(task, descent=Descent(), own_batches=()):
    """Masked mini-batch descent on ``task.x`` in place; its mean loss is over all samples seen.

    ``own_batches``, pairs (inputs, targets), are the batches of every epoch, if there are any, in
    place of what is dealt from the task's samples.

    The arithmetic is that of torch's own optimisers in their fused form, bit for bit, and of
    ``torch.nn.utils.clip_grad_norm_``. The gradient is masked before it is clipped and before the
    optimiser sees it, so pruned weights stay zero.

    Steps are recorded if the task has a recorder and its probe does not watch them.
    """
    probe = task.probe
    x = task.x[: task.layout.R]
    epochs, steps, _ = length_of(task)
    if own_batches:
        epochs = task.epochs
        steps = epochs * len(own_batches)
    lrs = learning_rates(task, steps)
    step, operands = _prepared(task, descent, x)
    take = _taking(step, operands)

    taken = seen = 0
    waits = descent.arrives is not None
    task.model.train()
    for epoch in range(epochs):
        for inputs, labels in islice(_epoch(task, descent, own_batches), steps - taken):
            if waits and taken == descent.delay:
                descent.arrives(task)
                waits = False
            take(inputs, labels, lrs[taken])
            taken += 1
            seen += len(labels)
        if probe.epoch is not None and probe.epoch(epoch):
            _mask_again(task, x, operands)
    if waits:
        descent.arrives(task)

    if _as_a_vector(descent, task.optimiser, probe.step):
        task.g.zero_()
    loss = float(operands["total"]) / max(seen, 1)
    travelled = _travelled(task.optimiser, lrs[:taken])
    state = {}
    if descent.resumes:
        state = states_of(operands)
    if task.recorder is not None:
        # Its next training writes to its tensors again.
        state = {name: tensor.clone() for name, tensor in state.items()}
    return Trained(loss, taken, seen, travelled, state)


def _travelled(optimiser, lrs):
    """``Trained.travelled`` after steps of these learning rates."""
    if optimiser.travelled is None:
        return math.nan
    return optimiser.travelled(lrs)


def _prepared(task, descent, x):
    """``(step, operands)``: the step of ``descend``, recorded if it can be, and its tensors."""
    start = _start(task, descent, x)
    sparse = "trainable" in start
    make = partial(_step, task, descent, x, sparse)
    watched = task.probe.step or task.probe.epoch
    # Code from outside may do something else in every step.
    from_outside = watched or descent.loss is not None
    if task.recorder is None or from_outside:
        return make(start), start
    rule = task.optimiser, descent, task.clip_norm
    return task.recorder.steps(rule, make, start)


def _taking(step, operands):
    """``take(inputs, labels, lr)``: one step; on a GPU it reads the rate from its tensor."""
    if "lr" not in operands:
        return step
    last_lr = None

    def take(inputs, labels, lr):
        nonlocal last_lr
        if lr != last_lr:
            last_lr = lr
            operands["lr"].fill_(lr)
        step(inputs, labels)

    return take


def _mask_again(task, x, operands):
    """Zero the model and the optimiser's state off the task's mask, after the mask has moved."""
    state = states_of(operands)
    for tensor in (x, *state.values()):
        # Counts have another shape, and no mask.
        if tensor.shape == task.trainable.shape:
            tensor.mul_(task.trainable)
    grow(task, state)


def _start(task, descent, x):
    """The tensors of a training, by name, beside the model in ``x (R,)``.

    ``total ()`` is the sum of the losses of all samples. On a GPU ``lr ()`` is the learning rate: a
    recorded step reads it anew each time. All others are (R,): the optimiser's state,
    ``trainable`` if weights are pruned, ``base`` with mu and ``shift`` with a shift.
    """
    layout = task.layout
    start = {"total": torch.zeros((), device=x.device)}
    if x.is_cuda:
        start["lr"] = torch.zeros((), device=x.device)
    for name, tensor in _first_state(task, descent, x).items():
        start[STATE + name] = tensor
    may_move = task.probe.epoch is not None
    if may_move or count(task.mask) < layout.num_weights:
        start["trainable"] = task.trainable
    if descent.mu:
        start["base"] = task.base[: layout.R]
    if descent.shift is not None:
        start["shift"] = shift_of(descent, task)
    return start


def _first_state(task, descent, x):
    """The optimiser's state before the first step on ``x (R,)``: new, or ``task.inner`` itself."""
    names = task.optimiser.init(x[:0]).keys()
    # A recorded step has tensors of its own.
    if task.recorder is None and task.inner.keys() == names:
        state = task.inner
    else:
        state = _zeros(task, descent, x)
        resume(state, task.inner)
    if task.inner:
        grow(task, state)
    return state


def _zeros(task, descent, x):
    """The optimiser's state before its first step: vectors (R,) of 0, and counts.

    Vectors lie where those of the rank's last training lay. Of a large model, fresh memory costs
    several times a step on it. A state that its client keeps has memory of its own.
    """
    if task.spare is None or descent.resumes:
        return task.optimiser.init(x)
    state = {}
    # Of one value: the names, and which are vectors.
    for name, tensor in task.optimiser.init(x[:1]).items():
        if tensor.ndim:
            tensor = _spare(task.spare, name, x).zero_()
        state[name] = tensor
    return state


def _spare(spare, name, x):
    """A vector like ``x``, of any values: the one of this name in ``spare``, if it fits."""
    vector = spare.get(name)
    if vector is None or vector.shape != x.shape:
        vector = spare[name] = in_huge_pages(torch.empty_like(x))
    return vector


def resume(state, inner):
    """Write ``inner``, the state of a client's last round, to an optimiser's ``state`` in place.

    An empty one leaves it as it is: at its start.
    """
    for name, tensor in inner.items():
        state[name].copy_(tensor)


def grow(task, state):
    """Give weights that have grown their place in the optimiser's ``state``, in place."""
    if task.optimiser.grown is not None:
        task.optimiser.grown(state, task.layout, task.mask)


def shift_of(descent, task):
    """(R,): the vector to add to every gradient of the task, 0 on padding."""
    real = task.layout.real[: task.layout.R]
    real = real.to(task.x.device)
    return descent.shift(task) * real


def states_of(operands):
    """The optimiser's tensors among ``operands``, by the optimiser's names."""
    states = {}
    for name, tensor in operands.items():
        if name.startswith(STATE):
            states[name.removeprefix(STATE)] = tensor
    return states


def _as_a_vector(descent, optimiser, watch):
    """Whether any reader of a step's gradient needs it as one vector."""
    if optimiser.fused is None:
        return True
    return bool(descent.mu or descent.shift or watch)


def _step(task, descent, x, sparse, operands):
    """``step(inputs, labels, lr)`` of ``descend`` on the model in ``x (R,)``.

    ``operands`` are the tensors of ``_start``; on a GPU the learning rate is among them, and ``lr``
    is left out. The step keeps nothing of the task that belongs to its client.
    """
    model, layout, g = task.model, task.layout, task.g
    watch = task.probe.step
    mu, clip_norm = descent.mu, task.clip_norm
    shifted = descent.shift is not None
    total = operands["total"]
    as_a_vector = _as_a_vector(descent, task.optimiser, watch)
    named = dict(model.named_parameters())
    trained = [named[slot.name] for slot in layout.trained]
    move = _move(task, x, trained, operands)
    trainables = views(layout, operands["trainable"]) if sparse else []
    parts_of_g = views(layout, g) if as_a_vector else []
    order = _models_order(layout, named) if clip_norm else []
    slopes = partial(_slopes, model, descent.loss or task.objective.loss, task.casting, trained)
    if task.accumulate > 1:
        slopes = partial(_added_up, slopes, task.accumulate)
    # A watch wants the gradients of pruned weights, too.
    kernels = {} if watch is not None else task.kernels
    products = multiplying(kernels, model, layout, task.mask)

    def step(inputs, labels, lr=None):
        with products():
            value, gradients = slopes(inputs, labels)
        total.add_(value, alpha=len(labels))
        if as_a_vector:
            torch._foreach_copy_(parts_of_g, gradients)
            gradients = parts_of_g
        if watch is not None:
            watch(g)
        if mu:
            g.add_(x, alpha=mu).sub_(operands["base"], alpha=mu)
        if shifted:
            g.add_(operands["shift"])
        if sparse:
            gradients = _scaled(gradients, trainables)
        if clip_norm:
            factor = clipping(clip_norm, gradients, order)
            gradients = _scaled(gradients, factor)
        if lr is None:
            lr = operands["lr"]
        move(gradients, lr)

    return step


def _slopes(model, loss, casting, trained, inputs, labels):
    """``(loss (), gradients)`` of a batch, a gradient for each ``trained`` parameter."""
    with casting():
        value = loss(model(inputs), labels)
    gradients = list(torch.autograd.grad(value, trained, materialize_grads=True))
    # Fused steps take all tensors in memory's order. One by one, so that no two copies of all live.
    for place, part in enumerate(gradients):
        gradients[place] = part.contiguous()
    return value.detach(), gradients


def _added_up(slopes, count, inputs, labels):
    """``slopes`` of a batch in ``count`` parts, one after the other, by their shares of samples."""
    size = -(-len(labels) // count)
    total, sums = torch.zeros((), device=labels.device), None
    for few_inputs, few_labels in zip(inputs.split(size), labels.split(size)):
        share = len(few_labels) / len(labels)
        value, gradients = slopes(few_inputs, few_labels)
        total += value * share
        # Not in place: two weights may share a gradient.
        gradients = torch._foreach_mul(gradients, share)
        if sums is None:
            sums = gradients
        else:
            torch._foreach_add_(sums, gradients)
    return total, sums


def _scaled(gradients, factors):
    """The gradients times their factors, in place unless two weights share a gradient."""
    addresses = {gradient.data_ptr() for gradient in gradients}
    if len(addresses) < len(gradients):
        return torch._foreach_mul(gradients, factors)
    torch._foreach_mul_(gradients, factors)
    return gradients


def _models_order(layout, named):
    """The places of ``layout.trained`` in the order of the model's parameters ``named``.

    Torch adds up norms in this order.
    """
    places = {slot.name: place for place, slot in enumerate(layout.trained)}
    return [places[name] for name in named if name in places]


def clipping(most, gradients, order):
    """(): the factor that shortens the gradients, all together, to the norm ``most``.

    It is 1 if they are shorter. Their norms are added up in ``order``.
    """
    ordered = [gradients[place] for place in order]
    norms = torch._foreach_norm(ordered)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    # As in torch: the 1e-6 spares a gradient of 0 the division by 0.
    factor = most / (norm + 1e-6)
    return factor.clamp(max=1.0)


def _move(task, x, trained, operands):
    """``move(gradients, lr)``: the optimiser's step on ``x (R,)``.

    Its state is among ``operands``.
    The ``trained`` parameters live in x. Without a fused kernel the gradients are views of the
    task's ``g``.
    """
    layout, optimiser, g = task.layout, task.optimiser, task.g
    state = states_of(operands)
    if optimiser.fused is None:
        return lambda gradients, lr: optimiser.step(x, g, state, lr)

    parameters = [parameter.data for parameter in trained]
    states = dict(state)
    for name, tensor in state.items():
        # Others are counts.
        if tensor.shape == x.shape:
            states[name] = views(layout, tensor)
    return lambda gradients, lr: optimiser.fused(parameters, gradients, states, lr)


def casting(precision, device):
    """The ``Task.casting`` of ``float32`` or ``bf16``.

    With bf16, products and convolutions take and give bfloat16; the weights, their gradients and
    the optimiser stay float32.
    """
    if precision == "float32":
        return contextlib.nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def dense_gradient(task, num_batches, loss=None):
    """(R,): the mean dense gradient at the received model over ``num_batches`` mini-batches.

    They are drawn without replacement; all of them if there are fewer. Batch statistics are left
    as they were.
    """
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
