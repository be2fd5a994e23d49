"""Loss and metrics of a model vector."""

import math
from functools import partial

import numpy as np
import torch

from fedmpi.compute.forward import forward
from fedmpi.core.errors import DivergedError
from fedmpi.core.flops import outputs as layers_of

EVALUATED = 500          # samples in a forward pass on a GPU
CACHED = 3 << 20         # bytes that a layer may put out for the samples of a pass on a CPU: what caches hold is a
                         # third faster; for a small CNN that are 42 samples, and 4 ms


def evaluator(model, x, inputs, labels, objective):
    """``evaluate(vector (P,))``, a generator that does a slice of the work at each step and returns ``(mean loss,
    {metric: mean})`` of a model bound to ``x`` on ``inputs`` and ``labels``, by the ``objective``. In between nobody
    else may write to ``x``."""
    size = EVALUATED if inputs.device.type != "cpu" else in_cache(model, inputs[:1])
    slices, outputs_of = list(zip(inputs.split(size), labels.split(size))), forward(model, inputs.device)
    totals = objective.totals or partial(summed, objective)

    def evaluate(vector):
        x.copy_(vector)
        loss, found = torch.zeros((), dtype=torch.float64), dict.fromkeys(objective.metrics, 0.0)
        model.eval()
        for given, wanted in slices:
            with torch.no_grad():
                more, sums = totals(outputs_of(given), wanted)
                loss += more.cpu()
                for name, value in sums.items():
                    found[name] += float(value)
            yield
        return float(loss) / len(labels), {name: value / len(labels) for name, value in found.items()}

    return evaluate


def summed(objective, outputs, targets):
    """``Objective.totals`` of an objective that has none of its own."""
    loss = objective.loss(outputs, targets, reduction="none").sum(dtype=torch.float64)
    sums = {name: metric(outputs, targets).sum(dtype=torch.float64) for name, metric in objective.metrics.items()}
    return loss, sums


def in_cache(model, sample):
    """How many samples like ``sample (1, ...)`` go through the model in one pass on a CPU."""
    largest = layers_of(model, sample)[1]
    return max(16, CACHED // max(largest, 4 * sample.numel()))


def by_sample(model, x, objective, at_once):
    """``measure(vector (P,), inputs (n, ...), labels (n, ...)) -> (n, 2)`` float64, numpy: each sample's loss and
    headline, by the ``objective`` and a model bound to ``x``, which is left at ``vector``. On a CPU ``at_once`` samples
    go through it in one pass; to find that out takes what a rank that trains never imports. ``measure(...,
    outputs_of)`` takes the outputs from that function of inputs instead of the model."""
    size, its_own = at_once if x.device.type == "cpu" else EVALUATED, forward(model, x.device)
    headline = objective.metrics[objective.headline]

    def measure(vector, inputs, labels, outputs_of=its_own):
        x.copy_(vector)
        model.eval()
        found = []
        for given, wanted in zip(inputs.split(size), labels.split(size)):
            with torch.no_grad():
                outputs = outputs_of(given)
                losses = objective.loss(outputs, wanted, reduction="none")
                values = headline(outputs, wanted)
                found.append(torch.stack([losses.double(), values.double()], dim=1).cpu().numpy())
        return np.concatenate(found)

    return measure


def finite(loss, whose):
    """The loss itself; DivergedError where it is not a number to go on with."""
    if not math.isfinite(loss):
        raise DivergedError(f"{whose} has loss {loss}; a smaller --lr may help")
    return loss
