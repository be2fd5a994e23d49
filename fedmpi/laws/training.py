"""Laws of local training: optimisers, schedules, augmentations, models and tasks."""

import copy
import math
from functools import partial

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.compute.evaluate import summed
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Round
from fedmpi.laws.hold import hold, hold_all, hold_equal, hold_type, near, twice
from fedmpi.plugins.spec import make

ROUNDS = 10
STEPS = 5
IMAGES = (6, 3, 5, 5)
# Of a task.
SAMPLES = 7
OUTPUTS = 3


def optimiser(spec):
    """Rows move as if each were alone, and weights of 0 without a gradient stay.

    The learning rate may be a number, a tensor or a rate a row.
    """
    part = make(catalog.OPTIMISERS, spec)
    x, *gradients = _tensors_with_dead_column(4)
    moved = _moved(part, x, gradients, 0.1)
    hold(not torch.equal(moved, x), "no step moved anything")
    # Else pruned weights would come back.
    pruned = moved[:, -1]
    hold(not pruned.any(), "a weight of 0 without a gradient moved")
    tensor_rate = torch.tensor(0.1)
    by_tensor = _moved(part, x, gradients, tensor_rate)
    near(by_tensor, moved, "a rate that is a tensor moves otherwise")
    row_rates = torch.full((2, 1), 0.1)
    by_row = _moved(part, x, gradients, row_rates)
    near(by_row, moved, "a rate a row moves otherwise")
    for row in range(2):
        row_gradients = [g[row] for g in gradients]
        x_row = x[row]
        alone = _moved(part, x_row, row_gradients, 0.1)
        moved_row = moved[row]
        near(alone, moved_row, "a row alone moves otherwise")


def _tensors_with_dead_column(num):
    """``num`` random tensors (2, 6), the last column 0, as of a pruned weight."""
    gen = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 6, generator=gen) for _ in range(num)]
    for tensor in tensors:
        tensor[:, -1] = 0
    return tensors


def _moved(part, x, gradients, lr):
    """``x`` after a step by each of the gradients."""
    x = x.clone()
    state = part.init(x)
    for g in gradients:
        own_gradient = g.clone()
        part.step(x, own_gradient, state, lr)
    return x


def schedule(spec):
    """A finite factor >= 0 in every step of every round, the same each time."""
    part = make(catalog.SCHEDULES, spec)
    rounds = range(1, ROUNDS + 1)
    for t in rounds:
        now = Round(t, ROUNDS)
        factors, again = twice(partial(_factors, part, now))
        for factor in factors:
            is_sound = math.isfinite(factor) and factor >= 0
            hold(is_sound, f"factors {factors}")
        hold(factors == again, "the same step has two rates")
        distinct = set(factors)
        is_constant = len(distinct) == 1
        hold(part.within or is_constant, "rates differ within a round, but within is False")


def _factors(part, now):
    """The factor of each step of a round."""
    return [float(part.rate(now, step, STEPS)) for step in range(STEPS)]


def augment(spec):
    """New images of the same shape, each by its own row, by the generator alone."""
    part = make(catalog.AUGMENTATIONS, spec)
    n, *shape = IMAGES
    gen = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, generator=gen)
    before = images.clone()

    def draw():
        image_shape = tuple(shape)
        gen = np.random.default_rng(1)
        return part.draw(gen, n, image_shape)

    drawn, again = twice(draw)
    expected_shape = (n, part.width)
    hold_type(drawn, expected_shape, torch.int64, "draw is not (n, width) int64")
    hold_equal(drawn, again, "the same generator drew otherwise")
    changed = part.apply(images, drawn)
    hold_equal(images, before, "apply wrote to its images")
    hold_type(changed, images.shape, images.dtype, "images changed their shape")
    # Images go to a device in batches of any size.
    for row in range(n):
        only = slice(row, row + 1)
        only_image = images[only]
        only_drawn = drawn[only]
        alone = part.apply(only_image, only_drawn)
        alone_image = alone[0]
        hold_equal(alone_image, changed[row], "an image alone is changed otherwise")


def model(spec):
    """Finite outputs of the right shape, a gradient for every weight, the seed's weights.

    The model takes images (1, 8, 8) or, where its factory refuses them, windows of 8 tokens.
    """
    classes = 7
    of_tokens = takes_tokens(spec)
    shape = (8,) if of_tokens else (1, 8, 8)

    # Initial weights come from torch's own generator.
    def seeded():
        torch.manual_seed(0)
        return make(catalog.MODELS, spec, shape, classes)

    network, again = twice(seeded)
    others = again.parameters()
    weights = network.parameters()
    for one, other in zip(weights, others, strict=True):
        hold_equal(one, other, "the same seed made other weights")
    inputs, labels = torch.rand(2, *shape), torch.tensor([0, 6])
    if of_tokens:
        inputs, labels = torch.arange(16).view(2, 8) % classes, torch.arange(16) % classes
    outputs = network(inputs)
    expected = (2, 8, classes) if of_tokens else (2, classes)
    hold(outputs.shape == expected, f"outputs {tuple(outputs.shape)}, not {expected}")
    hold_all(outputs.isfinite(), "outputs are not finite")
    loss = torch.nn.functional.cross_entropy(outputs.flatten(0, -2), labels)
    loss.backward()
    for name, parameter in network.named_parameters():
        # A factory may freeze some of its weights.
        if parameter.requires_grad:
            reached = parameter.grad is not None
            hold(reached, f"no gradient reaches {name}")


def adapters(spec):
    """The same generator attaches the same adapters, to the network as it was.

    Its tensors keep their names, its outputs their values, and a gradient reaches what is trained.
    """
    part = make(catalog.ADAPTERS, spec)
    torch.manual_seed(0)
    network = make(catalog.MODELS, "vit:depth=1,width=16,heads=2", (1, 8, 8), 3)
    inputs = torch.rand(2, 1, 8, 8)
    before = network(inputs)
    names = set(network.state_dict())
    if part.attach is None:
        return

    def attached():
        gen = torch.Generator().manual_seed(1)
        return part.attach(copy.deepcopy(network), gen, False)

    adapted, again = twice(attached)
    others = again.parameters()
    for one, other in zip(adapted.parameters(), others, strict=True):
        hold_equal(one, other, "the same generator drew other adapters")
    lost = names - set(adapted.state_dict())
    hold(not lost, f"tensors lost their names: {lost}")
    outputs = adapted(inputs)
    near(outputs, before, "adapters that are not yet trained change the outputs")
    outputs.sum().backward()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    hold(bool(trained), "nothing is trained")
    for parameter in trained:
        hold(parameter.grad is not None, "no gradient reaches a trained parameter")


def takes_tokens(spec):
    """Whether a model's factory takes windows of tokens, and refuses images."""
    try:
        make(catalog.MODELS, spec, (1, 8, 8), 7)
    except UserError:
        make(catalog.MODELS, spec, (8,), 7)
        return True
    return False


def task(spec):
    """The laws of losses, metrics and checks; outputs and targets are only read.

    The reductions of the loss agree with torch's rules, samples do not mix, metrics are one
    value a sample, a faster way to the sums makes the same sums, other shapes are refused.
    """
    part = make(catalog.TASKS, spec)
    _, outputs, targets, classes = _task_samples(part)
    outputs_before = outputs.clone()
    targets_before = targets.clone()
    losses = _check_loss(part, outputs, targets)
    _check_metrics(part, outputs, targets, losses)
    _check_refusals(part, outputs, targets, classes)
    hold_equal(outputs, outputs_before, "outputs or targets were written to")
    hold_equal(targets, targets_before, "outputs or targets were written to")


def targets_of(spec):
    """A task's sort of targets, as the data set ``synthetic`` calls it: classes, labels, values;
    or else tokens."""
    part = make(catalog.TASKS, spec)
    return _task_samples(part)[0]


def _task_samples(part):
    """``(sort, outputs (7, ..., w), targets (7, ...), classes)`` of the task's sort; w as it wants."""
    gen = torch.Generator().manual_seed(3)
    shape = (SAMPLES, OUTPUTS)
    outputs = torch.randn(shape, generator=gen)
    classes = torch.randint(0, OUTPUTS, (SAMPLES,), generator=gen)
    labels = torch.randint(0, 2, shape, generator=gen, dtype=torch.uint8)
    values = torch.randn(shape, generator=gen)
    logits = torch.randn(SAMPLES, 4, OUTPUTS, generator=gen)
    tokens = torch.randint(0, OUTPUTS, (SAMPLES, 4), generator=gen)
    sorts = (
        ("classes", outputs, classes, OUTPUTS),
        ("labels", outputs, labels, 0),
        ("values", outputs, values, 0),
        ("tokens", logits, tokens, 0),
    )
    refusals = []
    for sort, some_outputs, targets, num_classes in sorts:
        if part.outputs is not None:
            width = part.outputs(targets, num_classes)
            some_outputs = torch.randn(SAMPLES, width, generator=gen)
        try:
            part.check(some_outputs, targets, num_classes, "--model")
        except UserError as error:
            refusals.append(f"for {sort} it says: {error}")
            continue
        return sort, some_outputs, targets, num_classes
    raise AssertionError("check takes no targets: neither classes, nor labels (n, C) uint8, nor "
                         "values (n, d) float32, nor tokens (n, T) int64, with as many outputs as "
                         "Objective.outputs says; " + "; ".join(refusals))


def _check_loss(part, outputs, targets):
    """``(7,)``: the loss of each sample."""
    losses = part.loss(outputs, targets, reduction="none")
    broken = f"losses of 7 samples: {losses}"
    is_one_each = losses.shape == (SAMPLES,)
    hold(is_one_each, broken)
    is_finite = losses.isfinite()
    hold_all(is_finite, broken)
    _check_reductions(part, outputs, targets, losses)
    _check_gradient(part, outputs, targets)
    one = slice(2, 3)
    own_outputs = outputs[one]
    own_targets = targets[one]
    alone = part.loss(own_outputs, own_targets, reduction="none")
    own_loss = losses[one]
    near(alone, own_loss, "a sample alone has another loss")
    # --precision bf16 gives such outputs; their relative error is 2^-8.
    rounded = outputs.bfloat16()
    half = part.loss(rounded, targets)
    mean = losses.mean()
    half_loss = float(half)
    mean_loss = float(mean)
    difference = half_loss - mean_loss
    is_close = abs(difference) < 0.05
    hold(is_close, "outputs in bfloat16 have another loss")
    largest = losses.max()
    usual = float(largest)
    is_more = usual < part.worst < math.inf
    hold(is_more, "worst is less than a usual loss")
    return losses


def _check_reductions(part, outputs, targets, losses):
    mean = part.loss(outputs, targets)
    expected_mean = losses.mean()
    near(mean, expected_mean, "the mean is not the mean of the samples' losses")
    total = part.loss(outputs, targets, reduction="sum")
    expected_total = losses.sum()
    near(total, expected_total, "the sum is not that of the samples' losses")


def _check_gradient(part, outputs, targets):
    leaf = outputs.clone().requires_grad_()
    loss = part.loss(leaf, targets)
    loss.backward()
    gradient = leaf.grad
    broken = f"the gradient is {gradient}"
    is_finite = gradient.isfinite()
    hold_all(is_finite, broken)
    is_some = gradient.any()
    hold(bool(is_some), broken)


def _check_metrics(part, outputs, targets, losses):
    headline = part.headline
    is_metric = headline in part.metrics
    hold(is_metric, f"the headline {headline} is none of the metrics")
    # A faster way to the sums is optional.
    totals_of = part.totals or partial(summed, part)
    loss, totals = totals_of(outputs, targets)
    dtype = loss.dtype
    is_double = dtype == torch.float64
    hold(is_double, f"totals sum losses in {dtype}, not float64")
    _check_total(loss, losses, "loss")
    for name, metric in part.metrics.items():
        values = metric(outputs, targets)
        broken = f"{name} is not one number a sample"
        is_one_each = values.shape == (SAMPLES,)
        hold(is_one_each, broken)
        # Truth values count as 0 and 1; integers would round means.
        is_number = values.dtype == torch.bool or values.is_floating_point()
        hold(is_number, broken)
        total = totals[name]
        _check_total(total, values, name)


def _check_total(total, values, name):
    """A total is the sum of the samples' values, but for rounding."""
    precise = values.double()
    expected = precise.sum()
    expected_total = float(expected)
    own_total = float(total)
    difference = own_total - expected_total
    hold(abs(difference) < 1e-5, f"totals have another {name}")


def _check_refusals(part, outputs, targets, classes):
    """Outputs of other shapes are refused by a UserError, the option first."""
    narrow = outputs[:, :-1]
    short = outputs[:5]
    # Infinite or NaN, as after a divergence.
    infinite = outputs / 0
    for wrong in (narrow, short, (outputs,), infinite):
        try:
            part.check(wrong, targets, classes, "--model")
        except UserError as error:
            message = str(error)
            names_option = message.startswith("--model: ")
            hold(names_option, f"check says {error}, not --model: ...")
        else:
            raise AssertionError(f"check takes outputs that do not fit the targets: {wrong}")
