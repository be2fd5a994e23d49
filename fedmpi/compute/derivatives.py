"""Gradient and curvature of a model's mean loss, as functions of its vector.

The gradient is autograd's, the product of the Hessian with a vector that of Pearlmutter (1994): the gradient of
``<grad L, v>``, exact up to rounding. A product costs about two gradients, and no Hessian is formed. Kinks (ReLU, max
pooling) have curvature 0, as autograd takes them. Sizes: P values of the vector, R of them trained.
"""

import torch


def summed_gradient(model, layout, inputs, labels, loss):
    """(R,) float32 on the device: the dense gradient of the summed ``loss`` on ``inputs`` and ``labels``, at the
    values and in the mode that the model is in; 0 for padding, and for what plays no part. ``.grad`` is not touched."""
    slots = layout.weights + layout.others
    named = dict(model.named_parameters())
    with torch.enable_grad():
        value = loss(model(inputs), labels, reduction="sum")
        parts = torch.autograd.grad(value, [named[slot.name] for slot in slots], materialize_grads=True)
    return laid_out(layout, slots, parts)


def laid_out(layout, slots, parts):
    """(R,): tensors, one a slot, at their places in the vector."""
    whole = torch.zeros(layout.R, device=parts[0].device)
    for slot, part in zip(slots, parts):
        whole[slot.span] = part.reshape(-1)
    return whole


def derivatives(model, layout, x, inputs, labels, loss, batch_size=500):
    """``(gradient, curvature)`` of the mean ``loss`` of ``model``, bound to ``x (P,)``, on ``inputs``, ``labels``.

    ``gradient(vector (P,)) -> (R,) float32``; ``curvature(vector (P,), v (R,)) -> (R,) float32`` is the Hessian times
    v, all on the CPU. Both in evaluation mode, with the dense derivatives: entries off a mask have theirs, padding has
    0. ``vector`` is copied into ``x``, which is left so; ``.grad`` and the running statistics are not touched. Batches
    are summed in their order.
    """
    slots = layout.weights + layout.others
    named = dict(model.named_parameters())
    parameters = [named[slot.name] for slot in slots]

    def batches(vector):
        """The samples, batch by batch, with the model at ``vector``."""
        with torch.no_grad():
            x.copy_(vector)
        model.eval()
        return zip(inputs.split(batch_size), labels.split(batch_size))

    def mean(parts):
        """(R,) on the CPU: the batches' vectors, summed in their order and divided by the samples."""
        whole = torch.zeros(layout.R, device=x.device)
        for part in parts:
            whole += part
        return (whole / len(labels)).cpu()

    def gradient(vector):
        return mean(summed_gradient(model, layout, *batch, loss) for batch in batches(vector))

    @torch.enable_grad()
    def curvature(vector, v):
        v = v.to(device=x.device, dtype=x.dtype)
        along = [v[slot.span].view(slot.shape) for slot in slots]

        def product(given, wanted):
            value = loss(model(given), wanted, reduction="sum")
            slopes = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
            slope = sum((g * part).sum() for g, part in zip(slopes, along))
            return laid_out(layout, slots, torch.autograd.grad(slope, parameters, materialize_grads=True))

        return mean(product(*batch) for batch in batches(vector))

    return gradient, curvature
