"""Gradient and curvature of a model's mean loss, as functions of its vector.

The gradient is autograd's, the product of the Hessian with a vector that of Pearlmutter (1994): the gradient of
``<grad L, v>``, exact up to rounding. A product costs about two gradients, and no Hessian is formed. Kinks (ReLU, max
pooling) have curvature 0, as autograd takes them. Sizes: P values of the vector, R of them trained.
"""

import torch


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

    def losses(vector):
        """The summed loss of each batch at ``vector``, with its graph."""
        with torch.no_grad():
            x.copy_(vector)
        model.eval()
        for start in range(0, len(labels), batch_size):
            rows = slice(start, start + batch_size)
            yield loss(model(inputs[rows]), labels[rows], reduction="sum")

    def slopes(value, graph=False):
        """The derivative of ``value`` by every parameter, zero where there is none."""
        return torch.autograd.grad(value, parameters, create_graph=graph, materialize_grads=True)

    def mean(batches):
        """(R,) on the CPU: the batches' tensors, one a parameter, summed and divided by the samples."""
        whole = torch.zeros(layout.R, device=x.device)
        for parts in batches:
            for slot, part in zip(slots, parts):
                whole[slot.span] += part.reshape(-1)
        return (whole / len(labels)).cpu()

    @torch.enable_grad()
    def gradient(vector):
        return mean(slopes(value) for value in losses(vector))

    @torch.enable_grad()
    def curvature(vector, v):
        v = v.to(device=x.device, dtype=x.dtype)
        along = [v[slot.span].view(slot.shape) for slot in slots]

        def product(value):
            slope = sum((g * part).sum() for g, part in zip(slopes(value, graph=True), along))
            return slopes(slope)

        return mean(product(value) for value in losses(vector))

    return gradient, curvature
