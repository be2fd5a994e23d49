"""Loss and metrics of a model vector."""

import math
from functools import partial

import numpy as np
import torch

from fedmpi.compute.forward import forward
from fedmpi.core.errors import DivergedError
from fedmpi.core.flops import outputs as layers_of

# Samples in a forward pass on a GPU, and tokens.
EVALUATED = 500
TOKENS = 1 << 15
# Bytes that a layer may put out for the samples of a pass on a CPU: work within the caches is a
# third faster. For a small CNN that is 42 samples, and 4 ms.
CACHED = 3 << 20


def evaluator(model, x, inputs, labels, objective):
    """``evaluate(vector (P,))`` of a model bound to ``x``, on ``inputs`` and ``labels``.

    It is a generator that does a slice of the work at each step and returns ``(mean loss,
    {metric: mean})`` by the ``objective``. In between no other code may write to ``x``.
    """
    size = evaluated(inputs.shape[1:], inputs.dtype)
    if inputs.device.type == "cpu":
        size = in_cache(model, inputs[:1])
    slices = list(zip(inputs.split(size), labels.split(size)))
    outputs_of = forward(model, inputs.device)
    totals = objective.totals or partial(summed, objective)

    def evaluate(vector):
        x.copy_(vector)
        loss = torch.zeros((), dtype=torch.float64)
        sums = dict.fromkeys(objective.metrics, 0.0)
        model.eval()
        for few_inputs, few_labels in slices:
            with torch.no_grad():
                slice_loss, slice_sums = totals(outputs_of(few_inputs), few_labels)
                loss += slice_loss.cpu()
                for name, value in slice_sums.items():
                    sums[name] += float(value)
            yield
        n = len(labels)
        means = {name: value / n for name, value in sums.items()}
        return float(loss) / n, means

    return evaluate


def evaluated(shape, dtype):
    """The number of samples of a ``shape`` in a forward pass on a GPU: fewer of long windows."""
    is_window = len(shape) == 1 and dtype == torch.int64
    if not is_window:
        return EVALUATED
    return max(1, min(EVALUATED, TOKENS // shape[0]))


def with_derived(objective, token_bytes, evaluate):
    """``evaluate`` of ``evaluator``, with the metrics that follow from the mean loss."""
    if not objective.derived:
        return evaluate

    def more(vector):
        loss, means = yield from evaluate(vector)
        derived = {name: metric(loss, token_bytes) for name, metric in objective.derived.items()}
        return loss, means | derived

    return more


def summed(objective, outputs, targets):
    """``Objective.totals`` of an objective without its own."""
    losses = objective.loss(outputs, targets, reduction="none")
    total = losses.sum(dtype=torch.float64)
    sums = {}
    for name, metric in objective.metrics.items():
        values = metric(outputs, targets)
        sums[name] = values.sum(dtype=torch.float64)
    return total, sums


def in_cache(model, sample):
    """How many samples like ``sample (1, ...)`` go through the model in one pass on a CPU."""
    _, largest = layers_of(model, sample)
    # Values are float32. The input may be larger than every layer's output.
    sample_bytes = 4 * sample.numel()
    largest = max(largest, sample_bytes)
    return max(16, CACHED // largest)


def by_sample(model, x, objective, at_once):
    """``measure(vector (P,), inputs (n, ...), labels (n, ...)) -> (n, 2)`` float64, numpy.

    A row is a sample's loss and headline, by the ``objective`` and a model bound to ``x``; x is
    left at ``vector``. ``measure(..., outputs_of)`` takes the outputs from a function of inputs
    instead of the model.

    On a CPU ``at_once`` samples go through the model in one pass. The caller counts them:
    ``in_cache`` needs modules beyond those of a training rank.
    """
    on_cpu = x.device.type == "cpu"
    its_own = forward(model, x.device)
    headline = objective.metrics[objective.headline]

    def measure(vector, inputs, labels, outputs_of=its_own):
        x.copy_(vector)
        model.eval()
        rows = []
        size = at_once if on_cpu else evaluated(inputs.shape[1:], inputs.dtype)
        slices = zip(inputs.split(size), labels.split(size))
        for few_inputs, few_labels in slices:
            with torch.no_grad():
                outputs = outputs_of(few_inputs)
                losses = objective.loss(outputs, few_labels, reduction="none")
                values = headline(outputs, few_labels)
                columns = torch.stack([losses.double(), values.double()], dim=1)
                rows.append(columns.cpu().numpy())
        return np.concatenate(rows)

    return measure


def finite(loss, whose, advice):
    """The loss itself; DivergedError, with the ``advice``, if it is no finite number."""
    if not math.isfinite(loss):
        raise DivergedError(f"{whose} has loss {loss}; {advice}")
    return loss
