"""Laws of how clients train: optimisers, schedules, augmentations, models and tasks."""

import math
from functools import partial

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.compute.evaluate import summed
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Round
from fedmpi.laws.hold import hold, near
from fedmpi.plugins.spec import make

ROUNDS = 10
STEPS = 5


def optimiser(spec):
    """Rows are moved as if each were alone, weights of 0 without a gradient stay, the learning
    rate may be of any kind, and a fused step is the same step."""
    part = make(catalog.OPTIMISERS, spec)
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, generator=gen)
    x[:, -1] = 0
    gradients = [torch.randn(2, 6, generator=gen) for _ in range(3)]
    for g in gradients:
        g[:, -1] = 0
    moved = _moved(part, x, gradients, 0.1)
    hold(not torch.equal(moved, x), "no step moved anything")
    hold(not moved[:, -1].any(), "a weight of 0 without a gradient moved")
    near(_moved(part, x, gradients, torch.tensor(0.1)), moved, "a rate that is a tensor moves otherwise")
    near(_moved(part, x, gradients, torch.full((2, 1), 0.1)), moved, "a rate a row moves otherwise")
    for row in range(2):
        alone = [g[row] for g in gradients]
        near(_moved(part, x[row], alone, 0.1), moved[row], "a row alone moves otherwise")


def _moved(part, x, gradients, lr):
    """``x`` after a step by each of the gradients."""
    x = x.clone()
    state = part.init(x)
    for g in gradients:
        part.step(x, g.clone(), state, lr)
    return x


def schedule(spec):
    """A finite factor >= 0 in every step of every round, the same each time that it is asked."""
    part = make(catalog.SCHEDULES, spec)
    for t in range(1, ROUNDS + 1):
        now = Round(t, ROUNDS)
        factors = [float(part.rate(now, step, STEPS)) for step in range(STEPS)]
        again = [float(part.rate(now, step, STEPS)) for step in range(STEPS)]
        hold(all(math.isfinite(each) and each >= 0 for each in factors), f"factors {factors}")
        hold(factors == again, "the same step has two rates")
        hold(part.within or len(set(factors)) == 1, "rates differ within a round, but within is False")


def augment(spec):
    """New images of the same shape, each by its own row, by the generator alone."""
    part = make(catalog.AUGMENTATIONS, spec)
    images = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    drawn, again = (part.draw(np.random.default_rng(1), 6, (3, 5, 5)) for _ in range(2))
    hold(drawn.dtype == torch.int64 and drawn.shape == (6, part.width), "draw is not (n, width) int64")
    hold(torch.equal(drawn, again), "the same generator drew otherwise")
    changed = part.apply(images, drawn)
    hold(torch.equal(images, before), "apply wrote to its images")
    hold(changed.shape == images.shape and changed.dtype == images.dtype, "images changed their shape")
    for n in range(6):
        alone = part.apply(images[n : n + 1], drawn[n : n + 1])
        hold(torch.equal(alone[0], changed[n]), "an image alone is changed otherwise")


def model(spec):
    """Finite outputs of the right shape, a gradient for every trained weight, and the seed's
    weights."""
    shape, classes = (1, 8, 8), 7
    torch.manual_seed(0)
    network = make(catalog.MODELS, spec, shape, classes)
    torch.manual_seed(0)
    again = make(catalog.MODELS, spec, shape, classes)
    pairs = zip(network.parameters(), again.parameters(), strict=True)
    hold(all(torch.equal(one, other) for one, other in pairs), "the same seed made other weights")
    outputs = network(torch.rand(2, *shape))
    hold(outputs.shape == (2, classes), f"outputs {tuple(outputs.shape)}, not (2, {classes})")
    hold(bool(outputs.isfinite().all()), "outputs are not finite")
    torch.nn.functional.cross_entropy(outputs, torch.tensor([0, 6])).backward()
    for name, parameter in network.named_parameters():
        reached = not parameter.requires_grad or parameter.grad is not None
        hold(reached, f"no gradient reaches {name}")


def task(spec):
    """The reductions of the loss agree with torch's rules, samples do not mix, metrics are one
    value a sample, a faster way to the sums finds the same, other shapes are refused, and
    nothing is written to."""
    part = make(catalog.TASKS, spec)
    _, outputs, targets, classes = _task_samples(part)
    before = outputs.clone(), targets.clone()
    losses = _check_loss(part, outputs, targets)
    _check_metrics(part, outputs, targets, losses)
    _check_refusals(part, outputs, targets, classes)
    hold(torch.equal(outputs, before[0]) and torch.equal(targets, before[1]), "outputs or targets were written to")


def targets_of(spec):
    """The sort of targets that a task takes, as the data set ``synthetic`` calls it: classes,
    labels or values."""
    return _task_samples(make(catalog.TASKS, spec))[0]


def _task_samples(part):
    """``(sort, outputs (7, 3), targets (7, ...), classes)`` with targets of the first sort that
    the task takes."""
    gen = torch.Generator().manual_seed(3)
    outputs = torch.randn(7, 3, generator=gen)
    sorts = (("classes", torch.randint(0, 3, (7,), generator=gen), 3),
             ("labels", torch.randint(0, 2, (7, 3), generator=gen, dtype=torch.uint8), 0),
             ("values", torch.randn(7, 3, generator=gen), 0))
    for sort, targets, classes in sorts:
        try:
            part.check(outputs, targets, classes, "--model")
        except UserError:
            continue
        return sort, outputs, targets, classes
    raise AssertionError("check takes no targets: neither classes, nor labels (n, C) uint8, nor values (n, d) float32")


def _check_loss(part, outputs, targets):
    """``(7,)``: the loss of each sample."""
    losses = part.loss(outputs, targets, reduction="none")
    hold(losses.shape == (7,) and bool(losses.isfinite().all()), f"losses of 7 samples: {losses}")
    near(part.loss(outputs, targets), losses.mean(), "the mean is not the mean of the samples' losses")
    near(part.loss(outputs, targets, reduction="sum"), losses.sum(), "the sum is not that of the samples' losses")
    alone = part.loss(outputs[2:3], targets[2:3], reduction="none")
    near(alone, losses[2:3], "a sample alone has another loss")
    leaf = outputs.clone().requires_grad_()
    part.loss(leaf, targets).backward()
    hold(bool(leaf.grad.isfinite().all()) and bool(leaf.grad.any()), f"the gradient is {leaf.grad}")
    half = float(part.loss(outputs.bfloat16(), targets))
    hold(abs(half - float(losses.mean())) < 0.05, "outputs in bfloat16 have another loss")
    hold(part.worst > float(losses.max()) and math.isfinite(part.worst), "worst is less than a usual loss")
    return losses


def _check_metrics(part, outputs, targets, losses):
    hold(part.headline in part.metrics, f"the headline {part.headline} is none of the metrics")
    sums = {}
    for name, metric in part.metrics.items():
        values = metric(outputs, targets)
        number = values.dtype == torch.bool or values.is_floating_point()
        hold(values.shape == (7,) and number, f"{name} is not one number a sample")
        sums[name] = float(values.double().sum())
    loss, totals = (part.totals or partial(summed, part))(outputs, targets)
    hold(loss.dtype == torch.float64, f"totals sum losses in {loss.dtype}, not float64")
    hold(abs(float(loss) - float(losses.double().sum())) < 1e-5, "totals have another loss")
    for name, value in sums.items():
        hold(abs(float(totals[name]) - value) < 1e-5, f"totals have another {name}")


def _check_refusals(part, outputs, targets, classes):
    """What no model should give is refused by a UserError that begins with the option."""
    for wrong in (outputs[:, :2], outputs[:5], (outputs,), outputs / 0):
        try:
            part.check(wrong, targets, classes, "--model")
        except UserError as error:
            hold(str(error).startswith("--model: "), f"check says {error}, not --model: ...")
        else:
            raise AssertionError(f"check takes outputs that do not fit the targets: {wrong}")
