"""Several labels a sample: each of C labels holds or does not.

    loss           = mean over labels of -log sigmoid(output) where it holds, else of -log(1 - sigmoid(output))
    label_accuracy = share of the labels that are right
    exact_match    = [all labels are right]
    f1             = 2 |A and B| / (|A| + |B|) of the labels A found and B wanted, 1 where both are empty

Targets are (n, C) of 0 and 1, outputs (n, C) logits; a label is found where its logit is above
0. This f1 is the mean over samples. Micro and macro F1 are no means over samples, so they are
not recorded.
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
    Example: fedmpi train --task multi-label --dataset synthetic:samples=200,targets=labels --model logistic
    """
    metrics = {"f1": f1, "label_accuracy": label_accuracy, "exact_match": exact_match}
    return Objective(loss, metrics, headline, check)


def loss(outputs, targets, reduction="mean"):
    """Binary cross-entropy with logits, in nats, the mean over labels."""
    found = widened(outputs)
    wanted = targets.to(found.dtype)
    losses = F.binary_cross_entropy_with_logits(found, wanted, reduction="none")
    return reduced(losses.mean(1), reduction)


def label_accuracy(outputs, targets):
    """(n,) float32: the share of each sample's labels that are right."""
    return _right(outputs, targets).float().mean(1)


def exact_match(outputs, targets):
    """(n,) bool: whether all labels of a sample are right."""
    return _right(outputs, targets).all(1)


def f1(outputs, targets):
    """(n,) float32: the overlap of the labels found and wanted, a sample."""
    found, wanted = outputs > 0, targets > 0
    both = (found & wanted).sum(1)
    either = found.sum(1) + wanted.sum(1)
    return torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0)


def _right(outputs, targets):
    return (outputs > 0) == (targets > 0)


def check(outputs, targets, classes, option):
    """UserError unless targets are 0 and 1 for several labels, with a logit for each."""
    bits = targets.ndim == 2 and bool(((targets == 0) | (targets == 1)).all())
    require_targets(bits, option, "multi-label", "labels (n, C) of 0 and 1", targets,
                    "take --task classification for one class a sample, or say targets=labels of the data set")
    check_outputs(outputs, tuple(targets.shape), "logits", option,
                  f"the factory is given the {targets.shape[1]} labels as its second argument, and "
                  f"{len(targets)} samples must make {len(targets)} rows")
