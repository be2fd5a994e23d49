"""The contract of the parts of a training: optimisers, schedules, augmentations, tasks."""

import functools
import math
import re

import torch

from fedmpi.plugins.contract.inputs import check_inputs
from fedmpi.plugins.contract.require import (check_number, check_state, check_tensor,
                                             check_unwritten, few, in_words, require, versions,
                                             with_functions)

# Two rows, the last weight pruned, and gradients of two steps.
X = [[1.0, -2.0, 0.0], [0.5, 3.0, 0.0]]
GRADIENTS = ([[0.5, 1.0, 0.0], [-2.0, 0.25, 0.0]], [[-1.0, 0.5, 0.0], [1.0, 2.0, 0.0]])
OBJECTIVE = "see fedmpi.core.parts.Objective"
# A name that can be a column of a run file.
METRIC = re.compile("[a-z][a-z0-9_]*")


def optimiser(part, option):
    """The ``Optimiser`` itself: rows must move as if alone, and pruned weights must stay."""
    x = torch.tensor(X)
    gradients = [torch.tensor(rows) for rows in GRADIENTS]
    together = _moved(part, x, gradients, option)
    for row in range(2):
        row_gradients = [g[row] for g in gradients]
        x_row = x[row]
        alone = _moved(part, x_row, row_gradients, option)
        # Kernels for several rows may round otherwise.
        agrees = torch.allclose(alone, together[row], rtol=1e-5, atol=1e-7)
        require(agrees, option, "step to move each row of x as if it were alone",
                f"{few(together[row])} for {few(alone)}",
                "work elementwise, and keep counts of the shape x.shape[:-1]")
    pruned = together[:, 2]
    stays = not bool(pruned.any())
    require(stays, option, "step to leave a weight of 0 without a gradient", "one that moved",
            "pruned weights must stay at 0")
    return part


def _moved(part, x, gradients, option):
    """``x`` after a step by each of the gradients."""
    x = x.clone()
    state = part.init(x.clone())
    check_state(state, option, "init", only_tensors=True)
    whole = tuple(x.shape)
    count = tuple(x.shape[:-1])
    for name, tensor in state.items():
        fits = tensor.shape in (whole, count)
        require(fits, option,
                f"state[{name!r}] of init of the shape of x {whole} or of a count {count}",
                in_words(tensor), "see fedmpi.core.parts.Optimiser")
    for g in gradients:
        # A step may write to its gradient.
        own_gradient = g.clone()
        part.step(x, own_gradient, state, 0.1)
    return x


def schedule(part, option):
    """The ``Schedule``, its rates checked."""

    def rate(now, step, steps):
        factor = part.rate(now, step, steps)
        check_number(factor, option, "the factor that rate returns")
        fits = factor >= 0 and math.isfinite(factor)
        require(fits, option, "a finite factor >= 0 from rate", in_words(factor),
                "the learning rate is --lr times that")
        return factor

    return part._replace(rate=rate)


def augment(part, option):
    """The ``Augmentation``, its functions checked."""

    def draw(gen, n, shape):
        drawn = part.draw(gen, n, shape)
        check_tensor(drawn, (n, part.width), torch.int64, option, "what draw returns")
        return drawn

    def apply(images, drawn):
        inputs = {"images": images}
        before = versions(inputs)
        changed = part.apply(images, drawn)
        check_inputs(changed, images, option)
        check_unwritten(option, "apply", inputs, before)
        return changed

    return part._replace(draw=draw, apply=apply)


# ---------------------------------------------------------------- adapters


def adapters(part, option):
    """The ``Adapters``, the network that it returns checked."""

    def attach(network, gen, base):
        names = set(network.state_dict())
        adapted = part.attach(network, gen, base)
        is_network = isinstance(adapted, torch.nn.Module)
        require(is_network, option, "a torch.nn.Module from attach", in_words(adapted),
                "return the network with its adapters")
        lost = ", ".join(sorted(names - set(adapted.state_dict())))
        require(not lost, option, "attach to leave the network's tensors their names",
                f"a network without {lost}", "files of models name them so")
        return adapted

    return with_functions(part, {"attach": attach})


# ---------------------------------------------------------------- tasks


def task(part, option):
    """The ``Objective``, its loss and metrics checked."""
    _check_metrics(part, option)

    @functools.wraps(part.loss)
    def loss(outputs, targets, reduction="mean"):
        value = part.loss(outputs, targets, reduction=reduction)
        name = f"the loss with reduction={reduction}"
        if reduction == "none":
            _check_one_a_sample(value, outputs, option, name)
        else:
            _check_floats(value, (), option, f"{name} as a tensor () of floats")
        return value

    def outputs(targets, classes):
        number = part.outputs(targets, classes)
        fits = isinstance(number, int) and number >= 1
        require(fits, option, "outputs to return a whole number >= 1", in_words(number), OBJECTIVE)
        return number

    metrics = {name: _metric(part, name, option) for name in part.metrics}
    checked = part._replace(loss=loss, metrics=metrics)
    return with_functions(checked, {"outputs": outputs})


def _metric(part, name, option):

    def metric(outputs, targets):
        values = part.metrics[name](outputs, targets)
        _check_one_a_sample(values, outputs, option, f"the metric {name}", also=(torch.bool,))
        return values

    return metric


def _check_one_a_sample(values, outputs, option, name, also=()):
    """``values`` must be a float tensor (n,) for n outputs, or one of a dtype in ``also``."""
    n = len(outputs)
    expected = f"{name} as a tensor (n,) of floats, one value a sample, here ({n},)"
    _check_floats(values, (n,), option, expected, also)


def _check_floats(value, shape, option, expected, also=()):
    """``value`` must be a float tensor of a shape, or one of a dtype in ``also``."""
    # Only a tensor has a dtype to ask for.
    fits = False
    if isinstance(value, torch.Tensor):
        are_floats = value.is_floating_point() or value.dtype in also
        fits = are_floats and value.shape == shape
    require(fits, option, expected, in_words(value), OBJECTIVE)


def _check_metrics(part, option):
    """Metrics must have names for the columns of a run file, and the headline be one of them."""
    are_functions = isinstance(part.metrics, dict) and all(map(callable, part.metrics.values()))
    got = in_words(part.metrics)
    require(are_functions and part.metrics, option, "metrics as {name: function}", got, OBJECTIVE)
    for name in part.metrics:
        is_name = isinstance(name, str) and METRIC.fullmatch(name)
        require(is_name, option, "names of metrics in small letters, digits and _", repr(name),
                "call it otherwise")
    names = ", ".join(part.metrics)
    is_metric = part.headline in part.metrics
    require(is_metric, option, f"a headline among the metrics {names}",
            repr(part.headline), "name one of them")
    is_finite = isinstance(part.worst, (int, float)) and 0 < part.worst < math.inf
    require(is_finite, option, "worst as a finite number > 0", in_words(part.worst),
            "it is what a coalition's loss counts as where it is no number")
