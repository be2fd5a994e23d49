"""What training costs, by the two conventions in circulation. Not measured time: counted operations.

One sample forward costs ``2 * uses_l * kept_l`` in layer l, where ``uses_l`` is how often each weight is used: once
in a linear layer, at every output position in a convolution. Shapes are taken from a real forward pass.
"""

import torch

from fedmpi.flat import PRUNABLE


def uses(model, layout, shape, device="cpu"):
    """Multiplications a weight and sample, a layer (floats in the order of ``layout.weights``)."""
    found = {}

    def watch(module, inputs, output):
        found[id(module.weight)] = found.get(id(module.weight), 0) + _positions(module, inputs[0], output)

    _pass(model, [m for m in model.modules() if isinstance(m, PRUNABLE)], watch, shape, device)
    ids = {name: id(p) for name, p in model.named_parameters()}
    return tuple(float(found.get(ids[slot.name], 0)) for slot in layout.weights)


def _positions(module, given, output):
    """How often one weight of ``module`` is multiplied for one sample."""
    if isinstance(module, torch.nn.Linear):
        return output[0].numel() // module.out_features
    where = given if isinstance(module, torch.nn.modules.conv._ConvTransposeNd) else output
    return where[0, 0].numel()


def forward(layout, uses, mask):
    """FLOPs of one sample's forward pass on ``mask``."""
    return sum(2 * kept * use for kept, use in zip(layout.kept(mask), uses))


def training(layout, uses, mask, seen, extra, dense):
    """``(prunefl, rigl)``: FLOPs of training ``seen`` samples on ``mask``, ``extra`` in a dense-gradient pass of
    their own and ``dense`` of those seen with a dense weight gradient.

    PruneFL and the thesis charge a forward pass and the input gradient at the layer's density and the weight gradient
    as dense; RigL charges all three at the density, and a dense gradient where one is taken.
    """
    full = sum(2 * slot.size * use for slot, use in zip(layout.weights, uses))
    sparse = forward(layout, uses, mask)
    prunefl = (seen + extra) * (2 * sparse + full)
    rigl = seen * 3 * sparse + extra * (2 * sparse + full) + dense * (full - sparse)
    return prunefl, rigl


def outputs(model, shape, device="cpu"):
    """``(all, largest)``: bytes that the layers put out for one sample, in sum, and of the largest of them."""
    found = [0]

    def watch(module, given, output):
        if isinstance(output, torch.Tensor):
            found.append(output.numel() * output.element_size())

    _pass(model, [module for module in model.modules() if not list(module.children())], watch, shape, device)
    return sum(found), max(found)


def _pass(model, modules, watch, shape, device):
    """One sample of zeros through the model in eval mode; ``watch`` sees what goes in and out of ``modules``."""
    handles = [module.register_forward_hook(watch) for module in modules]
    training = model.training
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, *shape, device=device))
    model.train(training)
    for handle in handles:
        handle.remove()
