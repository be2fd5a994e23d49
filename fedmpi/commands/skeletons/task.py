"""NAME: classification by wide margins.

    loss = (1 / C) sum over the C - 1 other classes c of max(0, margin - output_target + output_c)
"""

import torch

from fedmpi.core.parts import Objective
from fedmpi.methods.tasks.classification import check


def NAME(margin: float = 1.0):
    """One class a sample: the multi-class hinge loss, with accuracy.

    Paper: none: the textbook's.
    Example: fedmpi train --task NAME:NAME:margin=2
    """
    if not margin > 0:
        raise ValueError(f"margin must be > 0, got {margin}")

    def loss(outputs, targets, reduction="mean"):
        # As torch's losses: one value a sample (n,) for "none", else their mean or sum.
        # A network may put out bfloat16, which is too coarse for a sum.
        own = outputs.float()
        return torch.nn.functional.multi_margin_loss(
            own, targets, margin=margin, reduction=reduction)

    def accuracy(outputs, targets):
        # One value a sample (n,), recorded as its mean under the metric's name.
        return outputs.argmax(dim=1) == targets

    metrics = {"accuracy": accuracy}
    # check: do the model's outputs fit the targets? Here as for any classification, whose targets
    # are classes.
    return Objective(loss, metrics, "accuracy", check, unit="1", classes=True)
