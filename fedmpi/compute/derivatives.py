"""Gradient and curvature of a model's mean loss, as functions of its vector.

The gradient is autograd's. The product of the Hessian with a vector v is Pearlmutter's (1994), the
gradient of ``<grad L, v>``: exact up to rounding. A product costs about two gradients,
and no Hessian is formed. Kinks (ReLU, max pooling) have curvature 0, as in autograd.

Sizes: P values of the vector, R of them trained.
"""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedmpi.compute.evaluate import evaluated
from fedmpi.core.layout import views
from fedmpi.core.logits import Logits


def summed_gradient(model, layout, inputs, labels, loss):
    """(R,) float32 on the device: the dense gradient of the summed ``loss`` on ``inputs``.

    It is taken at the model's present values and in its present mode. Padding, and parameters
    without a part in the loss, have 0. ``.grad`` is not touched.
    """
    parameters = _parameters(model, layout)
    with torch.enable_grad():
        value = loss(model(inputs), labels, reduction="sum")
        parts = torch.autograd.grad(value, parameters, materialize_grads=True)
    return laid_out(layout, layout.trained, parts)


def _parameters(model, layout):
    """The trained parameters, in the order of the layout."""
    named = dict(model.named_parameters())
    return [named[slot.name] for slot in layout.trained]


def laid_out(layout, slots, parts):
    """(R,): tensors, one a slot, at their places in the vector."""
    whole = torch.zeros(layout.R, device=parts[0].device)
    for slot, part in zip(slots, parts):
        whole[slot.span] = part.reshape(-1)
    return whole


def derivatives(model, layout, x, inputs, labels, loss, batch_size=0):
    """``(gradient, curvature)`` of the mean ``loss`` of ``model`` on ``inputs`` and ``labels``.

    ``gradient(vector (P,)) -> (R,) float32``. ``curvature(vector (P,), v (R,)) -> (R,) float32``
    is the Hessian times v. All are on the CPU. The model is bound to ``x (P,)``: ``vector`` is
    copied into it, and stays there.

    Both are taken in evaluation mode and are dense: entries off a mask have their derivatives,
    padding has 0. ``.grad`` and the running statistics are not touched. Batches are summed in
    their order; a ``batch_size`` of 0 stands for as many samples as an evaluation takes.
    """
    batch_size = batch_size or evaluated(inputs.shape[1:], inputs.dtype)

    def mean(derivative, vector):
        """(R,) on the CPU: the batches' summed vectors, divided by the number of samples."""
        with torch.no_grad():
            x.copy_(vector)
        model.eval()
        whole = torch.zeros(layout.R, device=x.device)
        batches = zip(inputs.split(batch_size), labels.split(batch_size))
        for few_inputs, few_labels in batches:
            whole += derivative(few_inputs, few_labels)
        of_a_sample = whole / len(labels)
        return of_a_sample.cpu()

    def gradient(vector):
        def derivative(inputs, labels):
            return summed_gradient(model, layout, inputs, labels, loss)

        return mean(derivative, vector)

    @torch.enable_grad()
    def curvature(vector, v):
        v = v.to(device=x.device, dtype=x.dtype)

        def derivative(inputs, labels):
            return _product(model, layout, inputs, labels, loss, v)

        return mean(derivative, vector)

    return gradient, curvature


def _product(model, layout, inputs, labels, loss, v):
    """(R,): the Hessian of the summed ``loss`` times ``v (R,)``; it needs enabled gradients."""
    parameters = _parameters(model, layout)
    # Attention's own kernels have no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        outputs = model(inputs)
    if isinstance(outputs, Logits):
        # Nor has their loss in chunks.
        outputs = outputs.whole()
    value = loss(outputs, labels, reduction="sum")
    slopes = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
    # <grad L, v>
    slope = 0
    directions = views(layout, v)
    for part, direction in zip(slopes, directions):
        product = part * direction
        slope = slope + product.sum()
    parts = torch.autograd.grad(slope, parameters, materialize_grads=True)
    return laid_out(layout, layout.trained, parts)
