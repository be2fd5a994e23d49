"""Classification: one class a sample.

    loss = -log softmax(outputs)[target],    accuracy = [largest output is the target's]

Targets are (n,) int64 in [0, classes), outputs (n, classes) logits.
"""

import torch
from torch.nn import functional as F

from fedmpi.core.parts import Objective
from fedmpi.methods.tasks.outputs import check_outputs, require_targets


def classification():
    """One class a sample: cross-entropy and accuracy.

    Paper: none: the usual one.
    Example: fedmpi train --task classification
    """
    metrics = {"accuracy": accuracy}
    return Objective(loss, metrics, "accuracy", check, totals=totals, classes=True)


def loss(outputs, targets, reduction="mean"):
    """Cross-entropy in nats."""
    return F.cross_entropy(outputs, targets, reduction=reduction)


def accuracy(outputs, targets):
    """(n,) bool: whether the largest output is the target's."""
    predicted = outputs.argmax(dim=1)
    return predicted == targets


def totals(outputs, targets):
    """``(loss () float64, {"accuracy": count})``, summed over the samples, on outputs' device."""
    # A class a row: the softmax takes a twentieth of its time with a class a column.
    rows = outputs.t().contiguous()
    logs = F.log_softmax(rows, dim=0)
    logs_of_targets = logs.gather(0, targets[None])
    summed_loss = -logs_of_targets.sum(dtype=torch.float64)
    num_right = accuracy(outputs, targets).sum()
    return summed_loss, {"accuracy": num_right}


def check(outputs, targets, classes, option):
    """UserError unless targets are classes and outputs are logits, one a class."""
    way_out = ("take --task regression for values, --task multi-label for several labels "
               "a sample, --task lm for tokens")
    require_targets(classes > 0, option, "classification", "classes", targets, way_out)
    n = len(targets)
    way_out = (f"the factory is given the {classes} classes as its second argument, and {n} "
               f"samples must make {n} rows")
    check_outputs(outputs, (n, classes), "logits", option, way_out)
