"""Loss and accuracy of a model vector."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from fedmpi.compute.forward import forward
from fedmpi.core.errors import DivergedError
from fedmpi.core.flops import outputs

EVALUATED = 500          # samples in a forward pass on a GPU
CACHED = 3 << 20         # bytes that a layer may put out for the samples of a pass on a CPU: what caches hold is a
                         # third faster; for a small CNN that are 42 samples, and 4 ms


def evaluator(model, x, inputs, labels):
    """``evaluate(vector (P,))``, a generator that does a slice of the work at each step and returns ``(mean loss,
    accuracy)`` of a model bound to ``x`` on ``inputs`` and ``labels``. In between nobody else may write to ``x``."""
    size = EVALUATED if inputs.device.type != "cpu" else in_cache(model, inputs[:1])
    slices, logits_of = list(zip(inputs.split(size), labels.split(size))), forward(model, inputs.device)

    def evaluate(vector):
        x.copy_(vector)
        loss, correct = torch.zeros((), dtype=torch.float64), 0
        model.eval()
        for given, wanted in slices:
            with torch.no_grad():
                logits = logits_of(given)
                logs = F.log_softmax(logits.t().contiguous(), dim=0)       # a class a row: 20 times as fast as a column
                loss -= logs.gather(0, wanted[None]).sum(dtype=torch.float64).cpu()
                correct += int((logits.argmax(dim=1) == wanted).sum())
            yield
        return float(loss) / len(labels), correct / len(labels)

    return evaluate


def in_cache(model, sample):
    """How many samples like ``sample (1, ...)`` go through the model in one pass on a CPU."""
    largest = outputs(model, sample)[1]
    return max(16, CACHED // max(largest, 4 * sample.numel()))


def by_sample(model, x, at_once):
    """``measure(vector (P,), inputs (n, ...), labels (n,)) -> (n, 2)`` float64, numpy: each sample's loss, and 1 where
    its class is found, else 0, by a model bound to ``x``, which is left at ``vector``. On a CPU ``at_once`` samples
    go through it in one pass; to find that out takes what a rank that trains never imports. ``measure(...,
    outputs_of)`` takes the outputs from that function of inputs instead of the model."""
    size, its_own = at_once if x.device.type == "cpu" else EVALUATED, forward(model, x.device)

    def measure(vector, inputs, labels, outputs_of=its_own):
        x.copy_(vector)
        model.eval()
        found = []
        for given, wanted in zip(inputs.split(size), labels.split(size)):
            with torch.no_grad():
                logits = outputs_of(given)
                losses = F.cross_entropy(logits, wanted, reduction="none")
                right = logits.argmax(dim=1) == wanted
                found.append(torch.stack([losses.double(), right.double()], dim=1).cpu().numpy())
        return np.concatenate(found)

    return measure


def finite(loss, whose):
    """The loss itself; DivergedError where it is not a number to go on with."""
    if not math.isfinite(loss):
        raise DivergedError(f"{whose} has loss {loss}; a smaller --lr may help")
    return loss
