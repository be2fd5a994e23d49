"""The cross-entropy of many places, chunk by chunk.

    loss = sum over places of share * (log sum exp(logits) - logit of the target)

Of logits that are not computed yet, the gradients are found together with the loss, so that no
logit is computed twice, and only a chunk of them is held.
"""

import torch
from torch.nn import functional as F

from fedmpi.core.logits import Logits

# Logits that are held at a time: 128 MiB of float32.
HELD = 1 << 25
# The target of a place that does not count.
IGNORED = -100


def weighted_loss(outputs, targets, shares):
    """(): the sum of the places' losses times ``shares (n, T)``, differentiable.

    ``outputs`` are logits (n, T, V), or ``Logits``; ``targets (n, T)`` int64.
    """
    if isinstance(outputs, Logits):
        features = outputs.features.flatten(0, 1)
        return _Weighted.apply(features, outputs.weight, targets.flatten(), shares.flatten())
    logits = outputs.flatten(0, 1)
    losses, _ = _of_places(logits, targets.flatten())
    return losses @ shares.flatten()


def of_places(outputs, targets):
    """``(losses (n, T) float32, right (n, T) bool)``, chunk by chunk.

    An ignored place has the loss 0, and is not right. With gradients all logits are held.
    """
    losses, right = [], []
    for few_outputs, few_targets in _chunks(outputs, targets):
        few_losses, logits = _of_places(few_outputs, few_targets)
        largest = logits.argmax(dim=1)
        losses.append(few_losses)
        right.append(largest == few_targets)
    all_losses = torch.cat(losses)
    all_right = torch.cat(right)
    return all_losses.view(targets.shape), all_right.view(targets.shape)


def _chunks(outputs, targets):
    """Yield ``(logits (m, V), targets (m,))`` of some places after the others."""
    size = max(1, HELD // outputs.shape[-1])
    few_targets = targets.flatten().split(size)
    if isinstance(outputs, Logits):
        few_features = outputs.features.flatten(0, 1).split(size)
        few_outputs = (F.linear(few, outputs.weight) for few in few_features)
    else:
        few_outputs = outputs.flatten(0, 1).split(size)
    yield from zip(few_outputs, few_targets)


def _of_places(logits, targets):
    """``(losses (m,), logits (m, V))``, both float32."""
    logits = logits.float()
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
    return losses, logits


class _Weighted(torch.autograd.Function):
    """``weighted_loss`` of ``features (m, d)``, in chunks of places."""

    @staticmethod
    def forward(ctx, features, weight, targets, shares):
        of_features = torch.empty_like(features)
        of_weight = torch.zeros_like(weight)
        total = torch.zeros((), device=features.device)
        size = max(1, HELD // len(weight))
        for start in range(0, len(features), size):
            rows = slice(start, start + size)
            few = features[rows]
            logits = F.linear(few, weight).float()
            slopes, losses = _slopes(logits, targets[rows], shares[rows])
            total += losses @ shares[rows]
            of_features[rows] = torch.mm(slopes, weight)
            of_weight += torch.mm(slopes.t(), few)
        ctx.save_for_backward(of_features, of_weight)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        of_features, of_weight = ctx.saved_tensors
        return of_features * slope, of_weight * slope, None, None


def _slopes(logits, targets, shares):
    """``(slopes (m, V), losses (m,))``: the loss's gradient by the logits, and each place's loss."""
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
    slopes = logits.softmax(dim=1)
    # An ignored place has the share 0, hence no gradient wherever its target is.
    places = targets.clamp(min=0)[:, None]
    minus = slopes.new_full(places.shape, -1.0)
    slopes.scatter_add_(1, places, minus)
    return slopes * shares[:, None], losses
