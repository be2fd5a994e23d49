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
    return Objective(loss, {"accuracy": accuracy}, "accuracy", check, totals=totals, classes=True)


def loss(outputs, targets, reduction="mean"):
    """Cross-entropy in nats."""
    return F.cross_entropy(outputs, targets, reduction=reduction)


def accuracy(outputs, targets):
    """(n,) bool: whether the largest output is that of the target."""
    return outputs.argmax(dim=1) == targets


def totals(outputs, targets):
    """``(loss () float64, {"accuracy": count})``, summed over the samples, on outputs' device."""
    # With a class a row the softmax takes a twentieth of the time that it takes with a class a column.
    logs = F.log_softmax(outputs.t().contiguous(), dim=0)
    right = logs.gather(0, targets[None])
    return -right.sum(dtype=torch.float64), {"accuracy": accuracy(outputs, targets).sum()}


def check(outputs, targets, classes, option):
    """UserError unless targets are classes and outputs are logits, one a class."""
    require_targets(classes > 0, option, "classification", "classes", targets,
                    "take --task regression for values, --task multi-label for several labels a sample")
    n = len(targets)
    check_outputs(outputs, (n, classes), "logits", option,
                  f"the factory is given the {classes} classes as its second argument, and {n} "
                  f"samples must make {n} rows")
