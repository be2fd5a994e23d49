"""Several labels a sample: each of C labels holds or does not.

    loss           = mean over labels of -log sigmoid(output) where the label holds,
                     else of -log(1 - sigmoid(output))
    label_accuracy = share of right labels
    exact_match    = [all labels are right]
    f1             = 2 |A and B| / (|A| + |B|) of the labels A predicted and B true,
                     1 where both are empty

Targets are (n, C) of 0 and 1, outputs (n, C) logits; a label is predicted by a logit above 0.
This f1 is the mean over samples. Micro and macro F1 are no means over samples, so they are not
recorded.
"""

from typing import Literal

import torch
from torch.nn import functional as F

from fedmpi.core.parts import Objective
from fedmpi.methods.tasks.outputs import check_outputs, reduced, require_targets, widened


def multi_label(headline: Literal["f1", "label_accuracy", "exact_match"] = "f1"):
    """Several labels a sample: binary cross-entropy, with f1, label accuracy and exact match.

    ``headline`` is the metric by which models are compared and selected. Where few labels hold,
    label accuracy is high for a model that finds none: f1 tells.

    Paper: none: the usual one.
    Example: fedmpi train --task multi-label --dataset synthetic:samples=200,targets=labels
        --model logistic
    """
    metrics = {"f1": f1, "label_accuracy": label_accuracy, "exact_match": exact_match}
    return Objective(loss, metrics, headline, check)


def loss(outputs, targets, reduction="mean"):
    """Binary cross-entropy with logits, in nats, the mean over labels."""
    logits = widened(outputs)
    wanted = targets.to(logits.dtype)
    # One value a label first: torch's own mean would mix samples.
    losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return reduced(losses.mean(1), reduction)


def label_accuracy(outputs, targets):
    """(n,) float32: the share of right labels, a sample."""
    return _right(outputs, targets).float().mean(1)


def exact_match(outputs, targets):
    """(n,) bool: whether all labels of a sample are right."""
    return _right(outputs, targets).all(1)


def f1(outputs, targets):
    """(n,) float32: the overlap of the labels predicted and true, a sample."""
    predicted = outputs > 0
    true = targets > 0
    num_both = (predicted & true).sum(1)
    num_sum = predicted.sum(1) + true.sum(1)
    # clamp: a division by 0 would make the unused branch NaN.
    overlap = 2 * num_both / num_sum.clamp(min=1)
    return torch.where(num_sum > 0, overlap, 1.0)


def _right(outputs, targets):
    """(n, C) bool: the labels that are right."""
    return (outputs > 0) == (targets > 0)


def check(outputs, targets, classes, option):
    """UserError unless targets are 0 and 1 for several labels, with a logit for each."""
    is_bit = (targets == 0) | (targets == 1)
    fits = targets.ndim == 2 and bool(is_bit.all())
    way_out = ("take --task classification for one class a sample, or a data set of labels: "
               "--dataset synthetic:targets=labels, or your own FILE.h5:targets=labels")
    require_targets(fits, option, "multi-label", "labels (n, C) of 0 and 1", targets, way_out)
    n, num_labels = targets.shape
    way_out = (f"the factory is given the {num_labels} labels as its second argument, and "
               f"{n} samples must make {n} rows")
    check_outputs(outputs, (n, num_labels), "logits", option, way_out)
