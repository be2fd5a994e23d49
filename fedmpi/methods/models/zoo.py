"""Any classifier of torchvision by its name, untrained; nothing is downloaded.

The first convolution is built anew when it is a plain one of 3 channels and the images have
another number. Most of these networks are made for 224 x 224 pixels; whether one works on
smaller images is not checked. Auxiliary outputs (googlenet, inception_v3) are left out.
"""

import difflib

from torch import nn

from fedmpi.methods.models.shape import image

# init_weights is torchvision's default: it warns unless the option is given.
NO_AUXILIARY = {"aux_logits": False, "init_weights": True}
OPTIONS = {"googlenet": NO_AUXILIARY, "inception_v3": NO_AUXILIARY}


def torchvision(shape, outputs, name: str = "resnet18"):
    """torchvision's model ``name`` with so many ``outputs`` for images ``shape``.

    Paper: of the model; the usual one: He et al. 2016, "Deep Residual Learning for Image
        Recognition", arXiv 1512.03385.
    Example: fedmpi train --dataset cifar10 --model torchvision:name=resnet18
    """
    from torchvision import models
    channels, _, _ = image(shape, name, 1)
    names = models.list_models(module=models)
    if name not in names:
        close = difflib.get_close_matches(name, names, 5) or names
        raise ValueError(f"torchvision has no classifier {name!r}; close are {', '.join(close)}")
    options = OPTIONS.get(name, {})
    model = models.get_model(name, weights=None, num_classes=outputs, **options)
    if channels != 3:
        _set_channels(model, channels)
    return model


def _set_channels(model, channels):
    """Replace the first convolution of ``model`` in place by one of so many ``channels``."""
    path, old = _first_convolution(model)
    if old.in_channels != 3 or old.groups != 1:
        raise ValueError(f"the first convolution cannot be adapted to {channels} channels: {old}")
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,
        old.stride,
        old.padding,
        old.dilation,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    parent, _, key = path.rpartition(".")
    setattr(model.get_submodule(parent), key, new)


def _first_convolution(model):
    """``(path, layer)`` of the first convolution of a ``model``."""
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            return path, layer
    raise ValueError("the model has no convolution to adapt")
